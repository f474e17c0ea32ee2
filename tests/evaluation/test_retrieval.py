"""Retrieval: ranks against a brute force, resuming, and a table on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pacl.api import Model
from pacl.cli import main
from pacl.data.pairs import Pairs, read_pairs
from pacl.evaluation.metrics.retrieval import image_to_text_ranks, recalls, text_to_image_ranks
from pacl.evaluation.retrieval import RetrievalScores


def test_ranks_are_those_of_a_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(4, (6, 9), generator=generator).double()  # with many ties
    owner = torch.tensor([0, 1, 2, 3, 4, 5, 0, 3, 3])
    of_texts, of_images = text_to_image_ranks(scores, owner), image_to_text_ranks(scores, owner)
    for text, image in enumerate(owner.tolist()):
        own = scores[image, text]
        rivals = [k for k in range(6) if k != image and scores[k, text] >= own]
        assert of_texts[text] == len(rivals)
    for image in range(6):
        mine = [k for k in range(9) if owner[k] == image]
        best = max(scores[image, k] for k in mine)
        assert of_images[image] == sum(scores[image, k] >= best for k in range(9) if k not in mine)
    found = recalls(of_texts, at=(1, 6))
    assert found == {"R@1": (of_texts == 0).double().mean().item(), "R@6": 1.0}


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    rng = np.random.default_rng(0)
    lines = ["file_name,caption"]
    for number, word in enumerate(("house", "boat", "snow")):
        pixels = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines += [f"{number}.png,a {word}", f"{number}.png,the {word}"]
    (tmp_path / "val.csv").write_text("\n".join(lines) + "\n")
    return read_pairs(tmp_path / "val.csv")


def test_resumes_where_it_stopped(model: Model, pairs: Pairs) -> None:
    whole = RetrievalScores(model, pairs, batch_size=2)
    steps = whole.iter_scored()
    next(steps)
    rest = RetrievalScores(model, pairs, batch_size=2)
    rest.restore(whole.state())
    assert rest.n_done == 2
    assert len(list(steps)) == len(list(rest.iter_scored())) == 1
    assert rest.recalls() == whole.recalls()
    np.testing.assert_array_equal(rest.state()["scores"], whole.state()["scores"])


def test_a_table_on_the_command_line(
    pairs: Pairs, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(pairs.report.source)
    line = ["evaluate", table, "--model", str(clip), "--output", str(tmp_path / "out")]
    assert main(line) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("/val: 6 captions of 3 images")
    assert out[1].split() == ["retrieval", "R@1", "R@5", "R@10"]
    assert main([*line, "--json"]) == 0
    printed = capsys.readouterr()
    assert "scored before" in printed.err
    [content] = json.loads(printed.out)
    assert content["rows"]["text to image"]["R@10"] == 1.0
    assert main(["evaluate", table, "voc20"]) == 2
    assert "is a table of captions" in capsys.readouterr().err
    assert main([*line, "--patch-stride-px", "4", "--pamr"]) == 2
    assert "table of captions: --pamr, --patch-stride-px would do" in capsys.readouterr().err
