"""From class scores on the patch grid to one label per pixel, without ever holding C × H × W.

Scores are upsampled bilinearly, block by block (`blocks.py`), and only those of the names that can
win there. On a CPU each thread labels strips of its own: threads that share each of some thousand
small operations would wait at every one for whichever another program keeps from running.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pacl.inference.blocks import Blocks
from pacl.modeling.compatibility import NotFiniteError
from pacl.runtime.threads import map_on_threads

CHUNK = {"cpu": 1 << 18, "cuda": 1 << 25}
"""Upsampled scores held at once: on a CPU 1 MiB of float32, which its cache holds."""

STRIP = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Pixels labelled at once, about: what a strip needs beside the maps of the whole image."""

MIN_STRIP = 1 << 14
"""Pixels of a strip, at least about: labelling fewer takes less time than starting to."""

N_STRIPS = (8, 32)
"""Strips of an image, about: at least, unless they would hold fewer pixels than MIN_STRIP, and at
most, unless they would hold more than STRIP. They do not depend on the number of threads, so
neither do the results."""

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
        is_kept = _competing(class_of_name, candidates)
        scores, class_of_name = scores[is_kept], class_of_name[is_kept]
    if not scores.isfinite().all():
        raise NotFiniteError("scores must be finite")
    blocks, chunk = Blocks(scores.float(), size_px), _chunk(scores)
    is_narrow = int(class_of_name.max()) < torch.iinfo(torch.int16).max
    label_of_name = (class_of_name + 1).to(torch.int16 if is_narrow else torch.int32)
    label_map = label_of_name.new_empty(size_px)
    confidence = torch.full_like(label_map, torch.nan, dtype=torch.float32)
    scale = logit_scale if wants_confidence or is_background is not None else None

    @torch.inference_mode()
    def label_strip(strip: range) -> None:
        rows = blocks.pixel_rows(strip)
        groups = iter_candidates(blocks, strip, chunk=chunk)
        labels, best = _label_blocks(blocks, strip, groups, label_of_name, scale, is_background)
        label_map[rows] = blocks.assemble(labels, strip)
        if scale is not None:
            confidence[rows] = blocks.assemble(best, strip)

    with torch.autocast(scores.device.type, enabled=False):  # products of scores stay exact
        _run_on_threads(label_strip, blocks, chunk)
    return label_map, confidence


def _label_blocks(
    blocks: Blocks,
    strip: range,
    groups: Iterable[tuple[Tensor, Tensor]],
    label_of_name: Int[Tensor, " C"],
    logit_scale: float | None,
    is_background: BackgroundRule | None,
) -> tuple[Int[Tensor, "m P"], Float[Tensor, "m P"]]:
    """Label the pixels of a strip's blocks, and find the best names' probability.

    Args:
        blocks: The image's.
        strip: The blocks to label.
        groups: Those blocks and their candidates, see `iter_candidates`.
        label_of_name: What each name is called in the label map.
        logit_scale: None leaves the probabilities out: they are then meaningless.
        is_background: As in `label_pixels`.
    """
    labels = label_of_name.new_empty(len(strip), blocks.n_pixels)
    probability = torch.empty_like(labels, dtype=torch.float32)
    for chosen, names in groups:
        corners, weights = blocks.corners(chosen), blocks.weights(chosen)
        best, best_name = upsampled_best(corners, weights, names)
        found, place = label_of_name[best_name], chosen - strip.start
        if logit_scale is not None:
            certainty = upsampled_certainty(
                corners,
                weights,
                best,
                logit_scale=logit_scale,
                names_at_once=max(names.shape[1], MIN_NAMES),
                wants_entropy=is_background is not None,
            )
            probability[place] = certainty.probability
            if is_background is not None:
                found = found.masked_fill(is_background(certainty), 0)
        labels[place] = found
    return labels, probability


def _competing(class_of_name: Tensor, candidates: Sequence[int]) -> Bool[Tensor, " C"]:
    """Return whether each name's class is among the candidates."""
    is_kept = torch.isin(class_of_name, class_of_name.new_tensor(list(candidates)))
    if not is_kept.any():
        raise ValueError(f"candidates name no class: {list(candidates)}")
    return is_kept


def _run_on_threads(label_strip: Callable[[range], None], blocks: Blocks, chunk: int) -> None:
    """Label strip by strip."""
    at_most = STRIP.get(blocks.device.type, STRIP["cpu"]) // blocks.n_pixels
    fewest, most = (len(blocks) // n for n in N_STRIPS)
    at_once = max(chunk // (4 * blocks.n_names), most)
    at_least = MIN_STRIP // blocks.n_pixels
    strips = blocks.cut(min(max(min(at_once, fewest), at_least), at_most))
    for _ in map_on_threads(label_strip, strips, device=blocks.device):
        pass


def iter_candidates(
    blocks: Blocks, strip: range, *, chunk: int
) -> Iterator[tuple[Int[Tensor, " m"], Int[Tensor, "m K"]]]:
    """Find the names that can be the best somewhere in a block: few, so only they are upsampled.

    Args:
        blocks: The image's.
        strip: Numbers of the blocks to look at.
        chunk: Upsampled scores that may be held at once.

    Yields:
        Numbers of some blocks, and their candidates in the order of names, repeated where a
        block has fewer than the others; every block of the strip once.

    Bilinear weights are not negative. So a name whose score lies below another's at all four
    patches around a block lies below it in the whole block. It is enough to compare with five
    names: the best at each of the four patches and the best of their mean.
    """
    at_once = max(1, chunk // (4 * blocks.n_names))
    for start in range(strip.start, strip.stop, at_once):
        every = torch.arange(start, min(start + at_once, strip.stop), device=blocks.device)
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
        first, second, third, fourth = (corners >= reached).unbind(dim=1)
        can &= first | second | third | fourth  # `any` takes three times as long
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
