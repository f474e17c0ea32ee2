"""From class scores on the patch grid to one label per pixel, without ever holding C × H × W.

Scores are upsampled bilinearly, block by block. Between four neighbouring patch centres they are a
product: the weights of the pixels (which depend on their places only) times the scores of the four
patches. A block is a rectangle of pixels that lie between the same four, small enough for a
product to stay in a CPU's cache. Half-pixel centres and borders are those of
`torch.nn.functional.interpolate` with align_corners=False.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

MAX_SIDE_PX = 32
"""Longest side of a block."""


@dataclass(frozen=True)
class Axis:
    """One side of the image, cut into blocks of at most MAX_SIDE_PX pixels."""

    before: Int[Tensor, " blocks"]
    """The patch before each block, counted from 1: patch 0 repeats the first one."""
    share: Float[Tensor, "blocks slots"]
    """How far each pixel lies from that patch to the next, in [0, 1); 0 where a slot is empty."""
    slot: Int[Tensor, " pixels"]
    """Place of each pixel among all slots, block after block."""


def cut_axis(n_patches: int, n_pixels: int, *, device: torch.device) -> Axis:
    """Cut one side of an image of n_pixels into blocks that do not straddle a patch centre."""
    pixel = torch.arange(n_pixels, device=device, dtype=torch.float64)
    place = (pixel + 0.5) * (n_patches / n_pixels) - 0.5
    gap = place.floor().long() + 1  # 0 before the first centre, n_patches after the last
    counts = gap.bincount(minlength=n_patches + 1)
    longest = int(counts.max())
    n_slots = -(-longest // -(-longest // MAX_SIDE_PX))
    nth = torch.arange(n_pixels, device=device) - (counts.cumsum(0) - counts)[gap]
    _, block = torch.unique_consecutive(gap * longest + nth // n_slots, return_inverse=True)
    slot = block * n_slots + nth % n_slots
    n_blocks = int(block[-1]) + 1
    share = torch.zeros(n_blocks * n_slots, device=device)
    share[slot] = (place - place.floor()).float()
    before = torch.zeros(n_blocks, dtype=torch.long, device=device)
    before[block] = gap
    return Axis(before, share.view(n_blocks, n_slots), slot)


class Blocks:
    """All blocks of an image, numbered in reading order.

    Args:
        scores: One per name and patch.
        size_px: (height, width) of the image.
    """

    def __init__(self, scores: Float[Tensor, "C rows columns"], size_px: tuple[int, int]) -> None:
        padded = F.pad(scores[None], (1, 1, 1, 1), mode="replicate")[0]
        self._scores = padded.permute(1, 2, 0).flatten(0, 1).contiguous()
        self._n_columns = padded.shape[2]
        self._down, self._across = (
            cut_axis(n, n_pixels, device=scores.device)
            for n, n_pixels in zip(scores.shape[1:], size_px, strict=True)
        )
        self.n_names, self.device = len(scores), scores.device
        self.n_pixels = self._down.share.shape[1] * self._across.share.shape[1]
        """Pixels of each block, P, those included that fall outside the image."""

    def __len__(self) -> int:
        return len(self._down.before) * len(self._across.before)

    def corners(self, blocks: Int[Tensor, " m"]) -> Float[Tensor, "m 4 C"]:
        """Return the four patches' scores around each block: upper left, upper right, lower."""
        row, column = self._place(blocks)
        first = self._down.before[row] * self._n_columns + self._across.before[column]
        offsets = [0, 1, self._n_columns, self._n_columns + 1]
        return self._scores[first[:, None] + first.new_tensor(offsets)]

    def weights(self, blocks: Int[Tensor, " m"]) -> Float[Tensor, "m 4 P"]:
        """Return each patch's share in each pixel of each block, P pixels in reading order."""
        row, column = self._place(blocks)
        down, across = self._down.share[row][:, :, None], self._across.share[column][:, None, :]
        lower, right = down * across, across - down * across
        return torch.stack([1 - down - right, right, down - lower, lower], dim=1).flatten(2)

    def assemble(self, values: Float[Tensor, "M P"] | Int[Tensor, "M P"]) -> Tensor:
        """Put one value per pixel of all blocks together to a map (H, W)."""
        (n_down, tall), (n_across, wide) = self._down.share.shape, self._across.share.shape
        values = values.view(n_down, n_across, tall, wide).transpose(1, 2)
        values = values.reshape(n_down * tall, n_across * wide)
        return values.index_select(0, self._down.slot).index_select(1, self._across.slot)

    def _place(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        n_across = len(self._across.before)
        return blocks // n_across, blocks % n_across


CHUNK = {"cpu": 1 << 18, "cuda": 1 << 25}
"""Upsampled scores held at once: on a CPU 1 MiB of float32, which its cache holds."""

MIN_NAMES = 16
"""Names upsampled at once, at least; fewer make products too thin to be fast."""


class Certainty(NamedTuple):
    """What the softmax over the names says of each pixel, apart from the winner."""

    probability: Float[Tensor, "*pixels"]
    """Probability of the best name, in [0, 1]."""
    entropy: Float[Tensor, "*pixels"]
    """Entropy over all names, in nats."""


BackgroundRule = Callable[[Certainty], Tensor]
"""Certainty of each pixel → True where the pixel is none of the names."""


def below_probability(certainty: Certainty, level: float) -> Bool[Tensor, "*pixels"]:
    """Mark as background where no name reaches the probability level, in [0, 1]."""
    return certainty.probability < level


def above_entropy(certainty: Certainty, level: float) -> Bool[Tensor, "*pixels"]:
    """Mark as background where the names' distribution has more entropy than level, in nats.

    The paper masks pixels above 1.5; for which data set and with which logit scale is not known.
    """
    return certainty.entropy > level


def label_pixels(
    scores: Float[Tensor, "C rows columns"],
    *,
    class_of_name: Int[Tensor, " C"],
    size_px: tuple[int, int],
    logit_scale: float,
    is_background: BackgroundRule | None = None,
    candidates: Sequence[int] | None = None,
    wants_confidence: bool = True,
) -> tuple[Int[Tensor, "H W"], Float[Tensor, "H W"]]:
    """Label every pixel with the class of its best name (paper, inference).

    Args:
        scores: One per name (several names may stand for one class) and patch; finite.
        class_of_name: Index of each name's class, from 0.
        size_px: (height, width) of the original image.
        logit_scale: Factor of the scores in the softmax over names.
        is_background: Rule for "none of these"; None labels every pixel.
        candidates: Only these classes compete; None means all.
        wants_confidence: False saves the softmax, most of the time; the confidence is then nan.

    Returns:
        The label map, 0 = none and k = class k - 1; the best name's probability, in [0, 1].

    Raises:
        ValueError: The candidates name no class, or a score is not finite.

    The scores, not the probabilities, are upsampled bilinearly; a class counts by its best name,
    the first of equal ones.
    """
    if candidates is not None:
        wanted = torch.tensor(list(candidates), device=scores.device, dtype=class_of_name.dtype)
        is_kept = torch.isin(class_of_name, wanted)
        if not is_kept.any():
            raise ValueError(f"candidates name no class: {list(candidates)}")
        scores, class_of_name = scores[is_kept], class_of_name[is_kept]
    if not scores.isfinite().all():
        raise ValueError("scores must be finite")
    blocks = Blocks(scores.float(), size_px)
    labels = torch.empty(len(blocks), blocks.n_pixels, dtype=torch.int32, device=scores.device)
    confidence = torch.full_like(labels, torch.nan, dtype=torch.float32)
    label_of_name = (class_of_name + 1).to(torch.int32)
    with torch.autocast(scores.device.type, enabled=False):  # products of scores stay exact
        for chosen, names in iter_candidates(blocks, chunk=_chunk(scores)):
            corners, weights = blocks.corners(chosen), blocks.weights(chosen)
            best, best_name = upsampled_best(corners, weights, names)
            found = label_of_name[best_name]
            if wants_confidence or is_background is not None:
                certainty = upsampled_certainty(
                    corners,
                    weights,
                    best,
                    logit_scale=logit_scale,
                    names_at_once=max(names.shape[1], MIN_NAMES),
                    wants_entropy=is_background is not None,
                )
                confidence[chosen] = certainty.probability
                if is_background is not None:
                    found = found.masked_fill(is_background(certainty), 0)
            labels[chosen] = found
    return blocks.assemble(labels), blocks.assemble(confidence)


def iter_candidates(
    blocks: Blocks, *, chunk: int
) -> Iterator[tuple[Int[Tensor, " m"], Int[Tensor, "m K"]]]:
    """Find the names that can be the best somewhere in a block: few, so only they are upsampled.

    Args:
        blocks: The image's.
        chunk: Upsampled scores that may be held at once.

    Yields:
        Numbers of some blocks, and their candidates in the order of names, repeated where a
        block has fewer than the others; every block once.

    Bilinear weights are not negative. So a name whose score lies below another's at all four
    patches around a block lies below it in the whole block. It is enough to compare with five
    names: the best at each of the four patches and the best of their mean.
    """
    at_once = max(1, chunk // (4 * blocks.n_names))
    for start in range(0, len(blocks), at_once):
        every = torch.arange(start, min(start + at_once, len(blocks)), device=blocks.device)
        is_candidate = can_win(blocks.corners(every))
        counts = is_candidate.sum(dim=1)
        row, name = is_candidate.nonzero(as_tuple=True)
        names = torch.zeros(len(every), int(counts.max()), dtype=torch.long, device=blocks.device)
        names[row, is_candidate.cumsum(dim=1)[row, name] - 1] = name
        counts, order = counts.sort(descending=True)
        sizes, first = counts.tolist(), 0
        while first < len(sizes):
            n_names = sizes[first]
            last = first + max(1, chunk // (blocks.n_pixels * max(n_names, MIN_NAMES)))
            group = order[first:last]
            yield every[group], names[group, :n_names]
            first = last


def can_win(corners: Float[Tensor, "m 4 C"]) -> Bool[Tensor, "m C"]:
    """Return whether each name's score reaches, at one of four patches, all of five good names'."""
    good = torch.cat([corners.argmax(dim=2), corners.sum(dim=1, keepdim=True).argmax(dim=2)], dim=1)
    can = torch.ones_like(corners[:, 0], dtype=torch.bool)
    for name in good.unbind(dim=1):
        reached = corners.gather(2, name[:, None, None].expand(-1, 4, 1))
        can &= (corners >= reached).any(dim=1)
    return can


def upsampled_best(
    corners: Float[Tensor, "m 4 C"], weights: Float[Tensor, "m 4 P"], names: Int[Tensor, "m K"]
) -> tuple[Float[Tensor, "m P"], Int[Tensor, "m P"]]:
    """Return the highest upsampled score at each pixel, and which of the given names has it."""
    chosen = corners.gather(2, names[:, None].expand(-1, 4, -1))
    best, nth = (chosen.mT @ weights).max(dim=1)
    return best, names.gather(1, nth)


def upsampled_certainty(
    corners: Float[Tensor, "m 4 C"],
    weights: Float[Tensor, "m 4 P"],
    best: Float[Tensor, "m P"],
    *,
    logit_scale: float,
    names_at_once: int,
    wants_entropy: bool,
) -> Certainty:
    """Compute the best name's probability and the entropy, from a softmax over all names.

    The entropy is log Z - Σ x exp(x) / Z, x the logits less the best one, Z the sum of exp(x).
    Powers of two, because torch's exp takes twice as long, and far more where it underflows.
    """
    scale = logit_scale / math.log(2)
    total, moment = torch.zeros_like(best), torch.zeros_like(best)
    for some in corners.split(names_at_once, dim=2):
        exponents = torch.baddbmm(best[:, None], some.mT, weights, beta=-scale, alpha=scale)
        if wants_entropy:
            share = exponents.exp2()
            moment += exponents.mul_(share).sum(dim=1)
        else:
            share = exponents.exp2_()
        total += share.sum(dim=1)
    return Certainty(total.reciprocal(), total.log() - math.log(2) * moment / total)


def _chunk(scores: Tensor) -> int:
    return CHUNK.get(scores.device.type, CHUNK["cpu"])
