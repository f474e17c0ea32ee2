"""Patches at any image size and stride (paper, section on inference: the stride trick).

The patch convolution keeps its kernel and runs with a smaller stride, so that patches overlap and
the grid gets finer: a 224 px image and 16 px patches give 14 x 14 tokens at stride 16 and 53 x 53
at stride 4. The learned positional embeddings are read off, bicubically, at the centres of the new
patches.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


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
    images: Float[Tensor, "B 3 H W"], kernel: Float[Tensor, "E 3 P P"], *, stride_px: int
) -> tuple[Float[Tensor, "B T E"], tuple[int, int]]:
    """Run the patch convolution at a given stride.

    Args:
        images: Normalised images.
        kernel: Weight of the encoder's patch convolution (CLIP's has no bias).
        stride_px: Distance between neighbouring patches, 1 to P.

    Returns:
        Patch tokens before positions are added, row-major, and the grid (rows, columns).

    Raises:
        ValueError: See `patch_grid`.
    """
    height_px, width_px = images.shape[-2:]
    grid = patch_grid(height_px, width_px, patch_px=kernel.shape[-1], stride_px=stride_px)
    patches = F.conv2d(images, kernel, stride=stride_px)
    return patches.flatten(2).transpose(1, 2), grid


def interpolate_positions(
    positions: Float[Tensor, "N E"], grid: tuple[int, int], *, patch_px: int, stride_px: int
) -> Float[Tensor, "T E"]:
    """Read learned positional embeddings off at the patch centres of another grid, bicubically.

    Args:
        positions: One embedding per patch of the native square grid, row-major, CLS left out.
        grid: The new (rows, columns).
        patch_px: Side of a patch.
        stride_px: Distance between neighbouring patches of the new grid.

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
    rows, columns = (
        _bicubic_weights(n, side, patch_px=patch_px, stride_px=stride_px).to(positions.device)
        for n in grid
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
        _cubic_weights(
            (torch.arange(n, dtype=torch.float64) + 0.5) * side / (n + 0.1) - 0.5, side
        ).to(positions.device)
        for n in grid
    )
    native = torch.unflatten(positions.float(), 0, (side, side))
    sampled = torch.einsum("rh,cw,hwe->rce", rows, columns, native)
    return sampled.flatten(0, 1).to(positions.dtype)


def _bicubic_weights(
    n_patches: int, n_native: int, *, patch_px: int, stride_px: int
) -> Float[Tensor, "new native"]:
    """Weight of each native position in each new one along one axis; rows sum to 1."""
    covered_px = (n_patches - 1) * stride_px + patch_px
    centres_px = torch.arange(n_patches, dtype=torch.float64) * stride_px + patch_px / 2
    return _cubic_weights(centres_px * n_native / covered_px - 0.5, n_native)


def _cubic_weights(at: Float[Tensor, " new"], n_native: int) -> Float[Tensor, "new native"]:
    """Weight of each native position at places between them; rows sum to 1.

    Keys' cubic convolution with a = -0.75 and clamped borders, as torch's bicubic interpolation.
    """
    weights = torch.zeros(len(at), n_native, dtype=torch.float64)
    for offset in (-1, 0, 1, 2):
        neighbour = at.floor() + offset
        weight = _cubic_kernel((at - neighbour).abs())
        column = neighbour.clamp(0, n_native - 1).long()
        weights.scatter_add_(1, column[:, None], weight[:, None])
    return weights.float()


def _cubic_kernel(distance: Tensor, a: float = -0.75) -> Tensor:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, near, far)
