"""Patches at any image size and stride (paper, section on inference: the stride trick).

The patch convolution keeps its kernel and runs with a smaller stride, so that patches overlap and
the grid gets finer: a 224 px image and 16 px patches give 14 x 14 tokens at stride 16 and 53 x 53
at stride 4. The learned positional embeddings are read off at the centres of the new patches, with
the filter that the tower's library resizes its table with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class TableFilter:
    """How a table of learned positions is read at other places than its own."""

    kernel: Literal["bicubic", "bilinear"] = "bicubic"
    """Shape of the filter."""

    is_antialiased: bool = False
    """Whether the filter widens where the new grid is coarser, as in torch's antialiased resize."""

    is_cropped: bool = False
    """Whether the table covers the square of the longer side, of which the image takes its part."""


BICUBIC = TableFilter()
"""CLIP's, SigLIP's and DINOv2's."""


def patch_grid(height_px: int, width_px: int, *, patch_px: int, stride_px: int) -> tuple[int, int]:
    """Count the patches of an image, (rows, columns); a rest too narrow for a patch is left out.

    Args:
        height_px: Image height.
        width_px: Image width.
        patch_px: Side of a patch.
        stride_px: Distance between neighbouring patches, 1 to patch_px.

    Raises:
        ValueError: The image is smaller than one patch, or the stride would leave gaps.
    """
    if not 1 <= stride_px <= patch_px:
        raise ValueError(f"stride_px must lie in 1..{patch_px} (the patch size), got {stride_px}")
    if min(height_px, width_px) < patch_px:
        raise ValueError(
            f"images must measure at least one patch, {patch_px} px, each way; "
            f"got {height_px} x {width_px} px"
        )
    return (height_px - patch_px) // stride_px + 1, (width_px - patch_px) // stride_px + 1


def embed_patches(
    images: Float[Tensor, "B 3 H W"],
    kernel: Float[Tensor, "E 3 P P"],
    bias: Float[Tensor, " E"] | None = None,
    *,
    stride_px: int,
) -> tuple[Float[Tensor, "B T E"], tuple[int, int]]:
    """Run the patch convolution at a given stride.

    Args:
        images: Normalised images.
        kernel: Weight of the encoder's patch convolution.
        bias: Its bias; None, as in CLIP: it has none.
        stride_px: Distance between neighbouring patches, 1 to P.

    Returns:
        Patch tokens before positions are added, row-major, and the grid (rows, columns).

    Raises:
        ValueError: See `patch_grid`.
    """
    height_px, width_px = images.shape[-2:]
    grid = patch_grid(height_px, width_px, patch_px=kernel.shape[-1], stride_px=stride_px)
    patches = F.conv2d(images, kernel, bias, stride=stride_px)
    return patches.flatten(2).transpose(1, 2), grid


def interpolate_positions(
    positions: Float[Tensor, "N E"],
    grid: tuple[int, int],
    *,
    patch_px: int,
    stride_px: int,
    table_filter: TableFilter = BICUBIC,
) -> Float[Tensor, "T E"]:
    """Read learned positional embeddings off at the patch centres of another grid.

    Args:
        positions: One embedding per patch of the native square grid, row-major, CLS left out.
        grid: The new (rows, columns).
        patch_px: Side of a patch.
        stride_px: Distance between neighbouring patches of the new grid.
        table_filter: The filter that reads between the table's places.

    Returns:
        One embedding per patch of the new grid; `positions` itself, to the bit, at native grid
        and stride.

    The native grid is stretched over the pixels that the new patches cover, so at stride =
    patch size this is the usual resizing with half-pixel centres. At a smaller stride the patches
    overlap, the outermost centres stay where they are, and resizing the grid as if it were a
    image would misplace them by up to half a patch; sampling at the true centres does not.
    """
    side = round(len(positions) ** 0.5)
    if grid == (side, side) and stride_px == patch_px:
        return positions
    covered_px = [(n - 1) * stride_px + patch_px for n in grid]
    if table_filter.is_cropped:
        covered_px = [max(covered_px)] * 2
    rows, columns = (
        _axis_weights(
            (torch.arange(n, dtype=torch.float64) * stride_px + patch_px / 2) / places_px - 0.5,
            side,
            table_filter=table_filter,
            widening=patch_px / places_px,
        ).to(positions.device)
        for n, places_px in zip(grid, (covered / side for covered in covered_px), strict=True)
    )
    native = torch.unflatten(positions.float(), 0, (side, side))
    sampled = torch.einsum("rh,cw,hwe->rce", rows, columns, native)
    return sampled.flatten(0, 1).to(positions.dtype)


def stretch_positions(
    positions: Float[Tensor, "N E"], grid: tuple[int, int]
) -> Float[Tensor, "T E"]:
    """Read positions as DINO's code does, and after it that of SCLIP, NACLIP, SC-CLIP, RF-CLIP.

    The grid counts as 0.1 patches longer than it is, so that rounding down gives its size; one of
    as many patches as the native grid takes the positions as they are, whatever its shape.

    Args:
        positions: One embedding per patch of the native square grid, row-major, CLS left out.
        grid: The new (rows, columns), at a stride of the patch size.
    """
    if grid[0] * grid[1] == len(positions):
        return positions
    side = round(len(positions) ** 0.5)
    rows, columns = (
        _axis_weights(
            (torch.arange(n, dtype=torch.float64) + 0.5) * side / (n + 0.1) - 0.5, side
        ).to(positions.device)
        for n in grid
    )
    native = torch.unflatten(positions.float(), 0, (side, side))
    sampled = torch.einsum("rh,cw,hwe->rce", rows, columns, native)
    return sampled.flatten(0, 1).to(positions.dtype)


def _axis_weights(
    at: Float[Tensor, " new"],
    n_native: int,
    *,
    table_filter: TableFilter = BICUBIC,
    widening: float = 1.0,
) -> Float[Tensor, "new native"]:
    """Weight of each native position at places between them, along one axis; rows sum to 1.

    Torch's two ways of resizing differ: the plain one clamps places beyond the border and has
    a = -0.75 in Keys' cubic kernel, the antialiased one leaves such places out and has a = -0.5,
    and widens its kernel where the new grid is coarser.
    """
    is_cubic = table_filter.kernel == "bicubic"
    if table_filter.is_antialiased:
        distance = (torch.arange(n_native) - at[:, None]).abs() / max(1.0, widening)
        weights = _cubic_kernel(distance, a=-0.5) if is_cubic else (1 - distance).clamp(min=0)
        return (weights / weights.sum(dim=1, keepdim=True)).float()
    weights = torch.zeros(at.shape[0], n_native, dtype=torch.float64)
    for offset in (-1, 0, 1, 2) if is_cubic else (0, 1):
        neighbour = at.floor() + offset
        distance = (at - neighbour).abs()
        weight = _cubic_kernel(distance, a=-0.75) if is_cubic else 1 - distance
        column = neighbour.clamp(0, n_native - 1).long()
        weights.scatter_add_(1, column[:, None], weight[:, None])
    return weights.float()


def _cubic_kernel(distance: Tensor, *, a: float) -> Tensor:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))
