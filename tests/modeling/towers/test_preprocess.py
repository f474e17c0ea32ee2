"""The centre crop, pixel for pixel, at all sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from checkpoints import write_clip
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.preprocess import Preprocessing


def _corner(preprocessing: Preprocessing, height: int, width: int) -> tuple[int, int]:
    """Return the row and the column of an image at which the crop starts."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.arange(height)[:, None]
    pixels[..., 1] = np.arange(width)
    row, column, _ = preprocessing.resize(pixels)[:, 0, 0].tolist()
    return row, column


@pytest.mark.parametrize("rounds", [True, False])
def test_centre_crop_at_all_sizes(rounds: bool) -> None:
    values = {"do_resize": False, "crop_size": 24}
    preprocessing = Preprocessing.from_config(values, rounds_crop=rounds)
    for long in range(24, 256):
        torchvisions = int(round((long - 24) / 2.0))  # noqa: RUF046
        transformers = int((long - 24) / 2.0)
        start = torchvisions if rounds else transformers
        assert _corner(preprocessing, 24, long) == (0, start)
        assert _corner(preprocessing, long, 25) == (start, 0)


def test_a_clip_is_cropped_as_in_its_training(tmp_path: Path) -> None:
    assert HfClip.from_pretrained(write_clip(tmp_path)).preprocessing.rounds_crop
