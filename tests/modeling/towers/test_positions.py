"""Patch grids at any size and stride, and positions read off at the patches' true centres."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pacl.modeling.towers.positions import embed_patches, interpolate_positions, patch_grid


@pytest.mark.parametrize(
    ("height", "width", "patch", "stride", "grid"),
    [
        (224, 224, 16, 16, (14, 14)),
        (224, 224, 16, 8, (27, 27)),
        (224, 224, 16, 4, (53, 53)),
        (224, 224, 14, 14, (16, 16)),
        (96, 200, 16, 16, (6, 12)),
        (16, 17, 16, 1, (1, 2)),
    ],
)
def test_grid_counts_whole_patches(
    height: int, width: int, patch: int, stride: int, grid: tuple[int, int]
) -> None:
    assert patch_grid(height, width, patch_px=patch, stride_px=stride) == grid


@pytest.mark.parametrize("stride", [0, -1, 17])
def test_stride_outside_the_patch_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match="stride_px"):
        patch_grid(32, 32, patch_px=16, stride_px=stride)


def test_image_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one patch"):
        patch_grid(15, 64, patch_px=16, stride_px=16)


@pytest.mark.parametrize("stride", [4, 2, 1])
def test_each_token_is_the_product_of_its_own_pixels(stride: int) -> None:
    images, kernel = torch.randn(2, 3, 12, 18), torch.randn(5, 3, 4, 4)
    tokens, (rows, columns) = embed_patches(images, kernel, stride_px=stride)
    assert tokens.shape == (2, rows * columns, 5)
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            patch = images[:, :, top : top + 4, left : left + 4]
            expected = torch.einsum("bchw,echw->be", patch, kernel)
            torch.testing.assert_close(tokens[:, row * columns + column], expected)


def test_native_grid_and_stride_is_the_identity() -> None:
    positions = torch.randn(49, 6)
    assert interpolate_positions(positions, (7, 7), patch_px=16, stride_px=16) is positions


@pytest.mark.parametrize("side", [2, 7, 16])
@pytest.mark.parametrize("patch_px", [14, 16, 32])
def test_the_formula_is_the_identity_too(side: int, patch_px: int) -> None:
    """Without the short cut: a row of 1 more makes the grid another one, its columns native."""
    positions = torch.randn(side, 6).repeat(side, 1)  # equal in every row
    sampled = interpolate_positions(
        positions, (side + 1, side), patch_px=patch_px, stride_px=patch_px
    )
    torch.testing.assert_close(sampled, positions[:side].repeat(side + 1, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("grid", [(14, 14), (5, 9), (20, 3), (1, 1)])
def test_at_native_stride_it_is_torchs_bicubic_resizing(grid: tuple[int, int]) -> None:
    positions = torch.randn(49, 6)
    picture = positions.unflatten(0, (7, 7)).permute(2, 0, 1)[None]
    expected = F.interpolate(picture, size=grid, mode="bicubic", align_corners=False)
    sampled = interpolate_positions(positions, grid, patch_px=16, stride_px=16)
    torch.testing.assert_close(sampled, expected[0].permute(1, 2, 0).flatten(0, 1))


@pytest.mark.parametrize("stride", [8, 4])
def test_small_strides_sample_at_the_true_patch_centres(stride: int) -> None:
    """Every second (fourth) patch is a native one, and so must be its position."""
    positions = torch.randn(49, 6)
    grid = patch_grid(7 * 16, 7 * 16, patch_px=16, stride_px=stride)
    sampled = interpolate_positions(positions, grid, patch_px=16, stride_px=stride)
    step = 16 // stride
    native = sampled.unflatten(0, grid)[::step, ::step].flatten(0, 1)
    torch.testing.assert_close(native, positions, atol=1e-6, rtol=0)


def test_positions_keep_their_type_and_gradient() -> None:
    positions = torch.randn(9, 4, dtype=torch.bfloat16, requires_grad=True)
    sampled = interpolate_positions(positions, (5, 5), patch_px=8, stride_px=8)
    assert sampled.dtype == torch.bfloat16
    sampled.sum().backward()
    assert positions.grad is not None
