"""Upsampling block by block against torch's own, which holds every pixel's scores."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pacl.inference.upsampling import MAX_SIDE_PX, Blocks


def upsample(scores: Tensor, size_px: tuple[int, int]) -> Tensor:
    blocks = Blocks(scores, size_px)
    every = torch.arange(len(blocks))
    values = blocks.corners(every).mT @ blocks.weights(every)
    return torch.stack([blocks.assemble(values[:, name]) for name in range(blocks.n_names)])


def assert_equals_interpolate(scores: Tensor, size_px: tuple[int, int]) -> None:
    expected = F.interpolate(scores[None].double(), size_px, mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsample(scores, size_px).double(), expected[0], atol=1e-6, rtol=0)


@settings(max_examples=40)
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size_px=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_any_size_equals_interpolate(grid: tuple[int, int], size_px: tuple[int, int]) -> None:
    assert_equals_interpolate(torch.rand(2, *grid), size_px)


@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (2, 1), (32, 43)])
@pytest.mark.parametrize("size_px", [(1, 1), (512, 683), (701, 3), (32, 43)])
def test_sizes_far_apart_equal_interpolate(grid: tuple[int, int], size_px: tuple[int, int]) -> None:
    assert_equals_interpolate(torch.rand(2, *grid), size_px)


def test_blocks_are_small_and_waste_little() -> None:
    blocks = Blocks(torch.rand(1, 32, 43), (512, 683))
    assert blocks.n_pixels == 16 * 16
    assert len(blocks) == 33 * 44
    large = Blocks(torch.rand(1, 14, 14), (3000, 4000))
    assert large.n_pixels <= MAX_SIDE_PX**2
    assert len(large) * large.n_pixels <= 1.25 * 3000 * 4000


def test_weights_are_shares() -> None:
    blocks = Blocks(torch.rand(1, 3, 4), (50, 31))
    weights = blocks.weights(torch.arange(len(blocks)))
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(blocks), blocks.n_pixels))
