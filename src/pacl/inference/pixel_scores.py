"""Scores at every pixel of a resized image, as mmsegmentation's protocols average their windows.

Each window's scores are upsampled to the window's pixels and averaged with its neighbours' there;
`label_scores` upsamples them once more, to the image's own size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pacl.inference.image_path import ImagePath
from pacl.inference.pamr import refine_scores
from pacl.inference.windows import PatchScorer, windows

CHUNK = 1 << 25
"""Upsampled scores held at once: 128 MiB of float32."""
QUARTER_PX = 4
"""Pixels per cell of the masks that PAMR refines window by window."""

Refine = Callable[[Tensor], Tensor]
"""From scores (C, H, W) at the image's own size to refined ones."""


@dataclass(frozen=True)
class WindowPamr:
    """PAMR of each window's scores at a quarter of its size, beside the plain scores."""

    iterations: int
    dilations: tuple[int, ...]

    def __call__(
        self, scores: Float[Tensor, "N rows columns"], window: Float[Tensor, "3 H W"]
    ) -> Float[Tensor, "N h w"]:
        """Upsample scores to a quarter of the window's size, and refine them there."""
        size_px = (window.shape[1] // QUARTER_PX, window.shape[2] // QUARTER_PX)
        image = F.interpolate(window[None], size_px, mode="bilinear", align_corners=True)[0]
        return refine_scores(
            _upsample(scores, size_px),
            image.to(scores.device),
            iterations=self.iterations,
            dilations=self.dilations,
        )


def iter_pixel_scores(
    inputs: Sequence[Float[Tensor, "3 _ _"]],
    scorer: PatchScorer,
    *,
    window_px: int | None,
    window_stride_px: int | None,
    patch_px: int,
    path: ImagePath,
    batch_size: int,
    pamr: WindowPamr | None = None,
) -> Iterator[Float[Tensor, "N _ _"]]:
    """Score every pixel of several images, one after the other.

    Args:
        inputs: Normalised images of any sizes.
        scorer: Gives one score per patch.
        window_px: None: the whole image.
        window_stride_px: None: half a window.
        patch_px: Side of the scorer's patches.
        path: Decides what happens at the borders of windows, and what a score is.
        batch_size: Windows given to the scorer at once.
        pamr: Adds as many refined scores behind the plain ones.

    Yields:
        Per image (N, height, width), or (2N, height, width) with `pamr`; the mean where windows
        overlap.
    """
    for image in inputs:
        height, width = image.shape[1:]
        side = window_px or max(height, width)
        places = windows(height, width, window=side, stride=window_stride_px or max(side // 2, 1))
        total, count = None, torch.zeros(height, width)
        for start in range(0, len(places), batch_size):
            batch = places[start : start + batch_size]
            crops = torch.stack([image[:, t:b, left:right] for t, left, b, right in batch])
            for of_window, (top, left, bottom, right) in zip(
                _score_windows(crops, scorer, patch_px=patch_px, path=path, pamr=pamr),
                batch,
                strict=True,
            ):
                if total is None:
                    total = of_window.new_zeros(len(of_window), height, width)
                total[:, top:bottom, left:right] += of_window
                count[top:bottom, left:right] += 1
        assert total is not None
        yield total / count.to(total.device)


def _score_windows(
    crops: Float[Tensor, "B 3 H W"],
    scorer: PatchScorer,
    *,
    patch_px: int,
    path: ImagePath,
    pamr: WindowPamr | None,
) -> Iterator[Float[Tensor, "N H W"]]:
    """Upsample the scores of windows of one size to their pixels."""
    height, width = crops.shape[2:]
    left, right, top, bottom = (
        side for n in (width, height) for side in _margins(n, patch_px, path.border)
    )
    padded = F.pad(crops, (left, right, top, bottom))
    patches = scorer(padded).float()
    if path.score == "sigmoid":
        patches = torch.sigmoid(10 * (patches - 0.25))
    size_px = (padded.shape[2], padded.shape[3])
    if path.border == "pad-end":  # the patches are stretched over the window, zeros and all
        size_px = (height, width)
    for of_window, window in zip(patches, padded, strict=True):
        scores = _upsample(of_window, size_px)
        if pamr is not None:
            scores = torch.cat([scores, _upsample(pamr(of_window, window), size_px)])
        yield scores[:, top : top + height, left : left + width]


def _margins(n_pixels: int, patch_px: int, border: str) -> tuple[int, int]:
    """Return the zeros before and after one side of a window."""
    missing = 0 if border == "cut" else -n_pixels % patch_px
    before = missing // 2 if border == "pad-both" else 0
    return before, missing - before


def _upsample(
    scores: Float[Tensor, "C rows columns"], size_px: tuple[int, int]
) -> Float[Tensor, "C H W"]:
    return F.interpolate(scores[None], size_px, mode="bilinear", align_corners=False)[0]


@dataclass(frozen=True)
class _Best:
    """What is known of each pixel of the image."""

    score: Float[Tensor, "H W"]
    name: Int[Tensor, "H W"]
    log_total: Float[Tensor, "H W"]
    """Logarithm of the sum over all names of the exponentials of their logits."""


def label_scores(
    scores: Float[Tensor, "N rows columns"],
    *,
    class_of_name: Int[Tensor, " N"],
    size_px: tuple[int, int],
    logit_scale: float,
    path: ImagePath,
    level: float | None = None,
    background_class: int | None = None,
    candidates: Sequence[int] | None = None,
    refine: Refine | None = None,
) -> tuple[Int[Tensor, "H W"], Float[Tensor, "H W"]]:
    """Upsample scores to the image's own size and label every pixel by its best name.

    Args:
        scores: One per name and pixel of the resized image.
        class_of_name: Index of each name's class, from 0.
        size_px: (height, width) of the original image.
        logit_scale: Factor of the scores in the softmax over names.
        path: Decides whether scores are softmaxed, and whether small classes are taken away.
        level: Pixels whose best name is less probable (or scores lower, where scores are masks)
            are none of the names; None: there are no such pixels.
        background_class: The class that is no foreground for `path.min_area_share`.
        candidates: Only these classes compete; None means all.
        refine: Applied to the upsampled scores, for instance PAMR.

    Returns:
        The label map, 0 = none and k = class k - 1; the best name's probability or mask value.
    """
    names = torch.arange(len(scores), device=scores.device)
    if candidates is not None:
        names = names[torch.isin(class_of_name, class_of_name.new_tensor(list(candidates)))]
    arguments = {"size_px": size_px, "logit_scale": logit_scale, "refine": refine}
    best = _find_best(scores, names, **arguments)
    log_total = best.log_total
    if path.min_area_share is not None:
        kept = _large_classes(class_of_name[best.name], background_class, path.min_area_share)
        best = _find_best(scores, names[torch.isin(class_of_name[names], kept)], **arguments)
    certainty = best.score
    if path.score == "cosine":
        certainty = (logit_scale * best.score - log_total).exp()
    labels = (class_of_name[best.name] + 1).to(torch.int32)
    if level is not None:
        labels = labels.masked_fill(certainty < level, 0)
    return labels, certainty


def _find_best(
    scores: Float[Tensor, "N rows columns"],
    names: Int[Tensor, " K"],
    *,
    size_px: tuple[int, int],
    logit_scale: float,
    refine: Refine | None,
) -> _Best:
    """Go through the names a few at a time, so that N × H × W scores are never held."""
    if not len(names):
        raise ValueError("candidates name no class")
    at_once = max(1, CHUNK // (size_px[0] * size_px[1]))
    found: _Best | None = None
    for some in names.split(at_once):
        maps = _upsample(scores[some], size_px)
        maps = maps if refine is None else refine(maps)
        score, nth = maps.max(dim=0)
        new = _Best(score, some[nth], (logit_scale * maps).logsumexp(dim=0))
        found = new if found is None else _better(found, new)
    assert found is not None
    return found


def _better(one: _Best, other: _Best) -> _Best:
    """Join what is known from two groups of names; the first of equal scores wins."""
    is_better: Bool[Tensor, "H W"] = other.score > one.score
    return _Best(
        torch.where(is_better, other.score, one.score),
        torch.where(is_better, other.name, one.name),
        torch.logaddexp(one.log_total, other.log_total),
    )


def _large_classes(
    classes: Int[Tensor, "H W"], background_class: int | None, share: float
) -> Int[Tensor, " K"]:
    """Return the background, and the classes on more than a share of all other pixels."""
    counts = torch.bincount(classes.flatten())
    numbers = torch.arange(len(counts), device=counts.device)
    is_background = numbers == (-1 if background_class is None else background_class)
    is_large = counts > share * counts[~is_background].sum()
    return numbers[is_large | is_background].to(classes.dtype)
