"""IoU of phrases, against sets of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark_copies import save_mask
from pacl.api import Model
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.evaluation.phrases import evaluate_phrases
from pacl.inference.config import SegmentConfig

NAMES = ["house", "boat", "snow"]
CONFIG = SegmentConfig(short_side_px=32, batch_size=2)


def test_a_phrase_stands_for_its_class_in_the_images_it_is_of(model: Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for k in range(4):
        pixels = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{k}.png")
        mask = rng.integers(0, 3, (4, 6)).repeat(8, 0).repeat(8, 1)
        mask[0] = 255
        save_mask(tmp_path / "masks" / f"{k}.png", mask)
    dataset = FolderDataset(tmp_path, labels=NAMES)
    labels = ["house", "boat", "house", "house"]
    phrases = ["red house in the snow", "large boat", "red house in the snow", "dog"]
    found = evaluate_phrases(model, dataset, labels, phrases, config=CONFIG)
    n_both, n_either = dict.fromkeys(labels, 0), dict.fromkeys(labels, 0)
    for item, label, phrase in zip(dataset.items, labels, phrases, strict=True):
        words = {name: phrase if name == label else name for name in NAMES}
        result = model.segment(item.image_path, words, config=CONFIG)
        mask, number = dataset.read_mask(item), NAMES.index(label)
        guess, truth = (result.label_map == number + 1) & (mask != 255), mask == number
        n_both[label] += int((guess & truth).sum())
        n_either[label] += int((guess | truth).sum())
    assert found == pytest.approx({label: n_both[label] / n_either[label] for label in n_both})
    assert min(found.values()) > 0
