"""A finer grid of patches without attention between all of them: ours, not the paper's.

The stride trick gives the encoder all patches of the fine grid at once, and each attends to all.
Here the image is encoded several times at the patch size as stride, shifted by one step of the fine
grid each time, and the tokens are put together: at a quarter of the patch size 16 passes of N
tokens in place of one of 16 N, whose attention costs 16 times as much (docs/log.md has the mIoU).
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from pacl.errors import InputError

Encode = Callable[[Tensor], tuple[Tensor, tuple[int, int]]]
"""Images (B, 3, H, W) -> patch tokens (B, T, E) at the patch size as stride, and their grid."""


def check_shifts(patch_px: int, stride_px: int) -> None:
    """Refuse a stride that the patch size is no multiple of.

    Raises:
        InputError: It is one.
    """
    if patch_px % stride_px:
        divisors = [str(n) for n in range(1, patch_px) if patch_px % n == 0]
        raise InputError(
            f"patch stride {stride_px} px: shifts of patches of {patch_px} px do not meet again",
            fix=f"use {', '.join(divisors)}; or leave out --grid shifted",
        )


def encode_shifted(
    encode: Encode, images: Float[Tensor, "B 3 H W"], *, patch_px: int, stride_px: int
) -> tuple[Float[Tensor, "B T E"], tuple[int, int]]:
    """Encode images once for each shift.

    The token of the patch whose upper left corner is the pixel (y, x), both multiples of the
    stride, is that of the pass over the image from pixel (y mod patch, x mod patch) on.

    Args:
        encode: Runs the tower.
        images: Normalised; a rest too narrow for a patch is left out of each pass.
        patch_px: Side of a patch.
        stride_px: Distance of neighbouring patches; a divisor of the patch size.

    Returns:
        Patch tokens, row-major, and their grid (rows, columns), as the stride trick gives them.
    """
    rows, columns = ((side - patch_px) // stride_px + 1 for side in images.shape[2:])
    n_shifts = patch_px // stride_px
    tokens: Tensor | None = None
    for down in range(min(n_shifts, rows)):
        for right in range(min(n_shifts, columns)):
            top, left = down * stride_px, right * stride_px
            tall, wide = (len(range(*each)) for each in ((down, rows, n_shifts),
                                                         (right, columns, n_shifts)))  # fmt: skip
            part = images[:, :, top : top + tall * patch_px, left : left + wide * patch_px]
            found, _ = encode(part)
            if tokens is None:
                tokens = found.new_empty(len(images), rows, columns, found.shape[-1])
            tokens[:, down::n_shifts, right::n_shifts] = found.unflatten(1, (tall, wide))
    assert tokens is not None
    return tokens.flatten(1, 2), (rows, columns)
