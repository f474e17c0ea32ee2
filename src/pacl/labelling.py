"""From class scores on the patch grid to one label per pixel, without ever holding C × H × W."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

MAX_CHUNK_ELEMENTS = 1 << 21
"""Upsampled scores held at once: 8 MiB of float32, about what the caches of a CPU hold."""

BackgroundRule = Callable[[Tensor], Tensor]
"""Probabilities (C, h, w) of the names → True (h, w) where the pixel is none of them."""


def below_probability(probabilities: Float[Tensor, "C h w"], level: float) -> Bool[Tensor, "h w"]:
    """Background where no name reaches the probability level, in [0, 1]."""
    return probabilities.amax(dim=0) < level


def above_entropy(probabilities: Float[Tensor, "C h w"], level: float) -> Bool[Tensor, "h w"]:
    """Background where the names' distribution has more entropy than level, in nats.

    The paper masks pixels above 1.5; for which data set and with which logit scale is not known.
    """
    return torch.special.entr(probabilities).sum(dim=0) > level


def label_pixels(
    scores: Float[Tensor, "C rows columns"],
    *,
    class_of_name: Int[Tensor, " C"],
    size_px: tuple[int, int],
    logit_scale: float,
    is_background: BackgroundRule | None = None,
    candidates: Sequence[int] | None = None,
) -> tuple[Int[Tensor, "H W"], Float[Tensor, "H W"]]:
    """Label every pixel with the class of its best name (paper, inference).

    Args:
        scores: of each name (several names may stand for one class) at each patch.
        class_of_name: index of each name's class, from 0.
        size_px: (height, width) of the original picture.
        logit_scale: factor of the scores in the softmax over names.
        is_background: rule for "none of these"; None labels every pixel.
        candidates: only these classes compete; None means all.

    Returns: label_map, 0 = none and k = class k - 1; the best name's probability, in [0, 1].

    The scores, not the probabilities, are upsampled bilinearly; a class counts by its best name.
    """
    if candidates is not None:
        wanted = torch.tensor(list(candidates), device=scores.device, dtype=class_of_name.dtype)
        is_kept = torch.isin(class_of_name, wanted)
        if not is_kept.any():
            raise ValueError(f"candidates name no class: {list(candidates)}")
        scores, class_of_name = scores[is_kept], class_of_name[is_kept]
    label_map = torch.empty(size_px, dtype=torch.int32, device=scores.device)
    confidence = torch.empty(size_px, dtype=torch.float32, device=scores.device)
    labels = (class_of_name + 1).to(torch.int32)
    for rows, chunk in iter_upsampled_rows(scores.float(), size_px=size_px):
        best, best_name = chunk.max(dim=0)
        weights = chunk.sub_(best).mul_(logit_scale).exp_()  # at most 1, so nothing overflows
        total = weights.sum(dim=0)
        confidence[rows] = total.reciprocal()
        label_map[rows] = labels[best_name]
        if is_background is not None:
            label_map[rows].masked_fill_(is_background(weights.div_(total)), 0)
    return label_map, confidence


def iter_upsampled_rows(
    scores: Float[Tensor, "C rows columns"], *, size_px: tuple[int, int]
) -> Iterator[tuple[slice, Float[Tensor, "C h W"]]]:
    """Bilinear upsampling (align_corners=False) to size_px, a few rows of pixels at a time.

    Yields: the rows' slice, and their scores in memory of their own.

    All chunks together equal F.interpolate(scores[None], size_px, mode="bilinear")[0].
    """
    height, width = size_px
    n_rows = scores.shape[1]
    place = (torch.arange(height, device=scores.device) + 0.5) * (n_rows / height) - 0.5
    place = place.clamp(0, n_rows - 1)
    above = place.long()
    share = (place - above).to(scores.dtype)[:, None]
    chunk_rows = max(1, MAX_CHUNK_ELEMENTS // (scores.shape[0] * width))
    for start in range(0, height, chunk_rows):
        rows = slice(start, min(start + chunk_rows, height))
        first, last = int(above[rows][0]), min(int(above[rows][-1]) + 1, n_rows - 1)
        strip = scores[None, :, first : last + 1]
        strip = F.interpolate(strip, (strip.shape[2], width), mode="bilinear")[0]
        upper = above[rows] - first
        lower = (upper + 1).clamp(max=last - first)
        yield rows, torch.lerp(strip[:, upper], strip[:, lower], share[rows])
