"""Scores of words that the model chooses: readings of regions, counts of names, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pacl.cli import main
from pacl.evaluation.open_words import count_names, overlap_classes

IGNORE = 255


def test_a_region_takes_the_class_that_it_covers_most() -> None:
    mask = np.array([[0, 0, 1], [0, 2, 2], [IGNORE] * 3])
    word = np.array([[3, 3, 3], [1, 1, 1], [0, 0, 0]])
    assert overlap_classes(word, mask, IGNORE, 5).tolist() == [-1, 2, -1, 0, -1]


def test_names_are_counted_once_an_image() -> None:
    mask = np.zeros((20, 20), dtype=np.int64)
    mask[10:], mask[0, 0], mask[19] = 1, 2, IGNORE  # class 2 is worth no name, but is there
    assert count_names(np.array([0, 2, 5, -1]), mask, IGNORE).tolist() == [2, 1, 4, 2]
    assert count_names(np.array([], dtype=np.int64), mask, IGNORE).tolist() == [2, 0, 0, 0]


@pytest.mark.slow
def test_storybook_without_labels(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    storybook_model: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pacl.evaluation.plan.N_SCENES", 60)
    line = ["evaluate", "storybook", "--model", str(storybook_model), "--labels", "auto"]
    assert main([*line, "--json"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    rows = {name: row["miou"] for name, row in record["rows"].items()}
    assert record["recall_of_names"] >= 0.8
    assert rows["overlap"] >= 0.85 * rows["known names"]
    assert rows["overlap"] > rows["nearest"] > 0.3
    assert main(line) == 0
    out, err = capsys.readouterr()
    assert "scored before" in err
    assert "recall of names" in out
    assert main([*line, "--pamr"]) == 2
    assert main([*line, "--stability", "0.5"]) == 2
    assert main([*line[:-2], "--words", "x.txt"]) == 2
