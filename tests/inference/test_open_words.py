"""Words chosen image by image: what stands out, what is merged, what is dropped, what is kept."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pacl.api import Model, load
from pacl.errors import InputError
from pacl.inference.config import SegmentConfig
from pacl.inference.open_words import (
    AREA_MIN,
    OpenSegmenter,
    WordBank,
    calibrate,
    presence,
    read_words,
)
from pacl.inference.segmenter import Segmenter
from pacl.inference.vocabulary import Vocabulary
from pacl.results import Segmentation

WORDS = ("sky", "grass", "meadow", "car")


class _Reader:
    """An encoder of patches of 8 px that looks at nothing."""

    image_size_px, patch_size_px = 32, 8

    def prepare(
        self, image: Image.Image, *, size_px: tuple[int, int] | None = None
    ) -> torch.Tensor:
        height, width = size_px or (32, 32)
        return torch.zeros(3, height, width)


def _bank(usual: list[float]) -> WordBank:
    embeds = torch.eye(4)
    embeds[2] = torch.tensor([0.0, 1.0, 0.02, 0.0])  # a meadow is grass
    embeds = torch.nn.functional.normalize(embeds, dim=1)
    vocabulary = Vocabulary(WORDS, embeds, torch.arange(4))
    return WordBank(vocabulary, torch.tensor(usual))


def _segmenter(bank: WordBank) -> OpenSegmenter:
    closed = Segmenter(
        lambda images: images[:, :1].expand(-1, 4, -1, -1)[:, :, ::8, ::8],
        encoder=_Reader(),
        labels=WORDS,
        class_of_name=bank.vocabulary.class_of_name,
        logit_scale=10.0,
        config=SegmentConfig(),
    )
    return OpenSegmenter(closed, bank, temperature=0.1)


def _scores(**rows: float) -> torch.Tensor:
    """The upper half of the image scores high for the first, the lower half for the others."""
    scores = torch.zeros(4, 4, 4)
    scores[0, :2] = rows["sky"]
    for k, word in enumerate(WORDS[1:], start=1):
        scores[k, 2:] = rows[word]
    return scores


def test_presence_is_the_pooled_cosine() -> None:
    scores = torch.tensor([[[0.1, 0.5], [-0.2, 0.3]]])
    weights = [math.exp(s / 0.1) for s in (0.1, 0.5, -0.2, 0.3)]
    expected = sum(w * s for w, s in zip(weights, (0.1, 0.5, -0.2, 0.3), strict=True)) / sum(
        weights
    )
    assert presence(scores, temperature=0.1).tolist() == pytest.approx([expected], abs=1e-6)


def test_words_that_stand_out_compete_and_synonyms_are_one() -> None:
    scores = _scores(sky=0.5, grass=0.45, meadow=0.46, car=0.4)
    chosen, label_map, _ = _segmenter(_bank([0.1] * 4)).label(scores, (32, 32))
    assert sorted(WORDS[k] for k in chosen) == ["meadow", "sky"]  # the car wins nothing
    assert label_map[0, 0] == 1
    assert label_map[31, 31] == 3
    usual = _bank([0.1, 0.1, 0.8, 0.1])  # this meadow fits every image
    chosen, label_map, _ = _segmenter(usual).label(scores, (32, 32))
    assert sorted(WORDS[k] for k in chosen) == ["grass", "sky"]
    assert label_map[31, 31] == 2


def test_a_word_of_tiny_area_is_dropped_and_its_pixels_go_to_the_others() -> None:
    scores = torch.zeros(4, 40, 40)
    scores[0], scores[3] = 0.3, 0.2
    scores[3, 0, 0] = 0.9  # less than half a percent of the image
    chosen, label_map, _ = _segmenter(_bank([0.0] * 4)).label(scores, (320, 320))
    assert AREA_MIN > 1 / 1600
    assert chosen == [0]
    assert (label_map == 1).all()


def test_one_word_is_always_left() -> None:
    chosen, label_map, _ = _segmenter(_bank([1.0] * 4)).label(
        _scores(sky=0.5, grass=0.1, meadow=0.1, car=0.1), (32, 32)
    )
    assert chosen == [0]
    assert (label_map == 1).all()


def test_calibration_is_the_mean_presence() -> None:
    vocabulary = _bank([0.0] * 4).vocabulary
    found = [torch.rand(4, generator=torch.Generator().manual_seed(k)) for k in range(9)]
    assert np.allclose(calibrate(vocabulary, found).usual, torch.stack(found).mean(0))
    assert not calibrate(vocabulary, []).usual.any()


def test_words_are_read_from_lines_or_captions(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("red car\nsky\n", encoding="utf-8")
    assert read_words(tmp_path / "words.txt") == ("red car", "sky")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    table = tmp_path / "captions.csv"
    table.write_text("file_name,caption\na.png,a car and a tree\na.png,two cars\n", "utf-8")
    assert read_words(table) == ("car", "tree")
    table.write_text("file_name,caption\na.png,quickly\n", "utf-8")
    with pytest.raises(InputError, match="no nouns"):
        read_words(table)


def test_a_bank_is_kept_for_later_runs(model: Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(9):
        pixels = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    (tmp_path / "9.png").write_bytes(b"broken")
    kept = tmp_path / "words.json"
    bank = model.word_bank(tmp_path, words=["house", "boat", "snow"], kept=kept)
    assert bank.usual.all()
    again = model.word_bank((), words=["house", "boat", "snow"], kept=kept)
    assert np.allclose(again.usual, bank.usual)
    assert not model.word_bank((), words=["house", "boat"]).usual.any()
    result = model.segment(tmp_path / "0.png", bank)
    assert result.labels == ("house", "boat", "snow")
    assert result.candidates
    listed = result.summary()["labels"]
    assert isinstance(listed, list)
    assert len(listed) == len(result.candidates)
    present = {int(k) - 1 for k in np.unique(result.label_map)}
    assert present <= set(result.candidates)
    [streamed] = model.stream(tmp_path / "0.png", bank)
    assert isinstance(streamed, Segmentation)
    assert np.array_equal(streamed.label_map, result.label_map)


def test_auto_needs_nothing_and_finds_what_is_drawn(storybook_model: Path) -> None:
    from pacl.datasets.storybook import draw_scene

    model = load(storybook_model, device="cpu")
    assert len(model.default_words()) == 31
    result = model.segment(draw_scene("test", 0).image, "auto")
    assert result.candidates
    assert len(result.candidates) < 31
