"""Scoring images window by window, windows of several images batched together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

PatchScorer = Callable[[Tensor], Tensor]
"""Normalised images (B, 3, H, W) → scores (B, C, rows, columns) of C names at each patch."""

Window = tuple[int, int, int, int]
"""Top, left, bottom, right, in pixels; bottom and right are outside."""


def windows(height: int, width: int, *, window: int, stride: int) -> list[Window]:
    """List windows that cover every pixel of an image, in reading order.

    All are of one size: window, or the image's side where that is smaller. The last of a row
    or column is moved inwards, never cut.

    Raises:
        ValueError: The stride exceeds the window, so pixels between windows would be missed.
    """
    if not 0 < stride <= window:
        raise ValueError(f"stride {stride} must be in 1..{window}, the window")
    tall, wide = min(window, height), min(window, width)
    tops = [*range(0, height - tall, stride), height - tall]
    lefts = [*range(0, width - wide, stride), width - wide]
    return [(top, left, top + tall, left + wide) for top in tops for left in lefts]


def score_maps(
    inputs: Sequence[Float[Tensor, "3 _ _"]],
    scorer: PatchScorer,
    *,
    window_px: int | None,
    window_stride_px: int | None,
    patch_px: int,
    cell_px: int,
    batch_size: int,
) -> list[Float[Tensor, "C _ _"]]:
    """Score several images, each on a grid of square cells that tile it.

    Args:
        inputs: Normalised images of any sizes whose sides are multiples of `grid_px`.
        scorer: Gives one score per patch.
        window_px: A multiple of `grid_px`; None: the whole image.
        window_stride_px: A multiple of `grid_px`; None: half a window.
        patch_px: Side of the scorer's patches.
        cell_px: The scorer's patch stride, at most patch_px.
        batch_size: Windows given to the scorer at once.

    Returns:
        Per image (C, height / cell_px, width / cell_px); the mean where windows overlap.
    """
    by_size: defaultdict[tuple[int, int], list[tuple[int, Window]]] = defaultdict(list)
    step_px = grid_px(patch_px, cell_px)
    for index, image in enumerate(inputs):
        height, width = image.shape[1:]
        side = window_px or max(height, width)
        stride = window_stride_px or max(side // 2 // step_px, 1) * step_px
        for window in windows(height, width, window=side, stride=stride):
            top, left, bottom, right = window
            by_size[bottom - top, right - left].append((index, window))

    sums: dict[int, Tensor] = {}
    counts = [torch.zeros(x.shape[1] // cell_px, x.shape[2] // cell_px) for x in inputs]
    for group in by_size.values():
        for start in range(0, len(group), batch_size):
            batch = group[start : start + batch_size]
            crops = [
                inputs[i][:, top:bottom, left:right] for i, (top, left, bottom, right) in batch
            ]
            scores = scorer(torch.stack(crops)).float()
            scores = patches_to_cells(scores, patch_px=patch_px, cell_px=cell_px)
            for (i, window), window_scores in zip(batch, scores, strict=True):
                top, left, bottom, right = (side // cell_px for side in window)
                if i not in sums:
                    sums[i] = window_scores.new_zeros(len(window_scores), *counts[i].shape)
                sums[i][:, top:bottom, left:right] += window_scores
                counts[i][top:bottom, left:right] += 1
    return [sums[i] / counts[i].to(sums[i].device) for i in range(len(inputs))]


def grid_px(patch_px: int, stride_px: int) -> int:
    """Return the step in pixels that whole patches and whole cells share.

    The sides of images and windows are multiples of it. It is the patch size, where the stride
    divides that.
    """
    return math.lcm(patch_px, stride_px)


def patches_to_cells(
    scores: Float[Tensor, "B C rows columns"], *, patch_px: int, cell_px: int
) -> Float[Tensor, "B C cell_rows cell_columns"]:
    """Resample scores of overlapping patches bilinearly to the cells that tile the image.

    Patches cell_px apart but wider than that reach over the border cells: the first patch's
    centre lies at patch_px / 2, that of the first cell at cell_px / 2. Cells nearer the border
    than any patch centre take the nearest patch's scores. Without overlap this is the identity.
    The patches are those of an image whose sides are multiples of `grid_px`.
    """
    if cell_px == patch_px:
        return scores
    n_more = -(-patch_px // cell_px) - 1
    first = (patch_px - cell_px) / (2 * cell_px)
    for dim in (2, 3):
        n_patches = scores.shape[dim]
        place = torch.arange(n_patches + n_more, device=scores.device) - first
        place = place.clamp(0, n_patches - 1)
        before = place.long()
        after = (before + 1).clamp(max=n_patches - 1)
        share = (place - before).to(scores.dtype)
        share = share[:, None] if dim == 2 else share
        scores = torch.lerp(
            scores.index_select(dim, before), scores.index_select(dim, after), share
        )
    return scores
