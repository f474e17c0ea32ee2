"""Shifted passes against a loop over patches, and through the segmenter."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pacl.api import Model
from pacl.errors import InputError
from pacl.inference.config import SegmentConfig
from pacl.inference.segmenter import build_scorer
from pacl.inference.shifted import encode_shifted

PATCH_PX = 4
LABELS = ["a house", "the sea"]


def encode(images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Each patch's pixels, and the mean of all the patches of the same pass: an attention."""
    patches = F.unfold(images, PATCH_PX, stride=PATCH_PX).mT
    grid = images.shape[2] // PATCH_PX, images.shape[3] // PATCH_PX
    return torch.cat([patches, patches.mean(dim=1, keepdim=True).expand_as(patches)], dim=2), grid


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("size", [(4, 4), (8, 12), (11, 7)], ids=str)
def test_each_token_is_that_of_its_shifted_image(stride: int, size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    found, (rows, columns) = encode_shifted(encode, images, patch_px=PATCH_PX, stride_px=stride)
    assert (rows, columns) == tuple((side - PATCH_PX) // stride + 1 for side in size)
    for row in range(rows):
        for column in range(columns):
            y, x = row * stride, column * stride
            tall, wide = (
                (side - at % PATCH_PX) // PATCH_PX * PATCH_PX
                for side, at in zip(size, (y, x), strict=True)
            )
            top, left = y % PATCH_PX, x % PATCH_PX
            whole, grid = encode(images[:, :, top : top + tall, left : left + wide])
            expected = whole[:, y // PATCH_PX * grid[1] + x // PATCH_PX]
            assert torch.equal(found[:, row * columns + column], expected)


def test_it_is_the_plain_grid_at_the_patch_size_and_finer_below(model: Model) -> None:
    image = Image.effect_noise((64, 48), 90).convert("RGB")
    size = SegmentConfig(size_px=(48, 64))
    plain = model.segment(image, LABELS, config=size)
    patch_px = model.pacl.vision.patch_size_px
    same = SegmentConfig(size_px=(48, 64), patch_stride_px=patch_px, grid="shifted")
    finer = SegmentConfig(size_px=(48, 64), patch_stride_px=patch_px // 2, grid="shifted")
    whole = SegmentConfig(size_px=(48, 64), patch_stride_px=patch_px // 2)
    assert (model.segment(image, LABELS, config=same).class_scores == plain.class_scores).all()
    scores = model.segment(image, LABELS, config=finer).class_scores
    expected = model.segment(image, LABELS, config=whole).class_scores
    assert scores.shape == expected.shape
    assert 0 < abs(scores - expected).mean() < 0.5 * expected.std()


def test_a_stride_is_refused_before_the_first_image(model: Model) -> None:
    embeds = model.vocabulary(LABELS).text_embeds
    too_far = 2 * model.pacl.vision.patch_size_px
    with pytest.raises(InputError, match=f"{too_far}"):
        build_scorer(model.pacl, embeds, patch_stride_px=too_far)
    with pytest.raises(InputError, match="use 1, 2, 4"):
        build_scorer(model.pacl, embeds, patch_stride_px=3, grid="shifted")


@pytest.mark.usefixtures("unchecked_shapes")
def test_what_does_not_fit_is_refused(model: Model) -> None:
    image = Image.new("RGB", (64, 64))
    with pytest.raises(InputError, match="use 1, 2, 4"):
        model.segment(
            image, LABELS, config=SegmentConfig(patch_stride_px=3, grid="shifted", size_px=(48, 48))
        )
    with pytest.raises(InputError, match="use whole, shifted or merged"):
        SegmentConfig(grid="fine")  # type: ignore[arg-type]
    assert "grid" not in SegmentConfig().decisive()
    assert SegmentConfig(grid="shifted").decisive()["grid"] == "shifted"
