"""Labels by a benchmark's name, and words for the background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacl.api import Model
from pacl.datasets.segmentation import NAMES, find_benchmark
from pacl.errors import InputError
from pacl.inference.config import SegmentConfig
from pacl.inference.vocabulary import read_labels
from pacl.text.labels import parse_labels, with_background


def test_a_benchmark_gives_its_classes_synonyms_and_background() -> None:
    assert len(read_labels("voc20")) == 20
    assert read_labels("voc20").names == find_benchmark("voc20").class_names
    assert not read_labels("voc20").background
    labels = read_labels("voc21")
    assert labels.names == read_labels("voc20").names
    assert "sky" in labels.background
    assert not set(labels.background) & {word for group in labels.prompts for word in group}
    for name in NAMES:
        assert len(read_labels(name)) >= 19


def test_anything_else_is_read_as_before(tmp_path: Path) -> None:
    assert read_labels("voc") == parse_labels("voc")
    path = tmp_path / "ontology.json"
    path.write_text('{"vehicle": ["car", "a red lorry with a trailer"]}', encoding="utf-8")
    assert read_labels(str(path)).prompts == (("car", "a red lorry with a trailer"),)


def test_words_for_the_background_compete_and_leave_no_label(model: Model) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8))
    every = model.segment(image, "house,boat,snow,car")
    found = model.segment(image, with_background(parse_labels("house,boat"), ["snow", "car"]))
    assert found.labels == ("house", "boat")
    assert found.class_scores.shape[0] == 2
    assert set(np.unique(every.label_map)) & {3, 4}  # else nothing is tested
    assert np.array_equal(found.label_map, np.where(every.label_map > 2, 0, every.label_map))
    np.testing.assert_allclose(found.scores, every.scores, atol=1e-6)


@pytest.mark.parametrize("words", [["house"], ["sky", "Sky"], [" "]])
def test_words_for_the_background_are_words_of_their_own(words: list[str]) -> None:
    with pytest.raises(InputError):
        with_background(parse_labels("house,boat"), words)


def test_background_words_are_part_of_the_settings(model: Model) -> None:
    labels = parse_labels("house,boat")
    with_words = model.settings(with_background(labels, ["snow"]), SegmentConfig())
    assert with_words["background"] == ("snow",)
    assert "background" not in model.settings(labels, SegmentConfig())
