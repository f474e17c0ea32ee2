"""Mixing PACL's compatibility with CLIP's own cosine, the share chosen on training images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn import functional

EQUAL_SHARE = 0.5
N_STEPS = 20


@dataclass(frozen=True)
class FusionWeight:
    """How much CLIP's score counts in the mix."""

    clip_share: float
    """In [0, 1]: 1 is CLIP alone, 0 PACL alone."""
    n_images: int
    """Training images it was chosen on; 0: it was not chosen but fixed beforehand."""
    top1: float | None
    """Accuracy on those images, in [0, 1]; None where there were none."""


def fuse_logits(
    pacl_logits: Float[Tensor, "B N"], clip_logits: Float[Tensor, "B N"], clip_share: float
) -> Float[Tensor, "B N"]:
    """The weighted mean of both logits, an option of ours that the paper does not have."""
    return torch.lerp(pacl_logits, clip_logits, clip_share)


def max_over_names(
    logits: Float[Tensor, "B N"], class_of_name: Int[Tensor, " N"], n_classes: int
) -> Float[Tensor, "B C"]:
    """Score of each class: that of its best name."""
    index = class_of_name.to(logits.device).expand_as(logits)
    empty = logits.new_full((len(logits), n_classes), -torch.inf)
    return empty.scatter_reduce(1, index, logits, reduce="amax")


def choose_clip_share(
    pacl_logits: Float[Tensor, "B N"],
    clip_logits: Float[Tensor, "B N"],
    targets: Int[Tensor, " B"],
    *,
    class_of_name: Int[Tensor, " N"],
) -> FusionWeight:
    """The share with the most right answers, of 0, 0.05, ... 1.

    Args:
        pacl_logits: PACL's logits of training images, scaled.
        clip_logits: CLIP's logits of the same images.
        targets: Their classes.
        class_of_name: Class of each name; every class has one or more.

    Of shares with equally many right answers, the one of least cross-entropy is taken. Test
    images must never be used here.
    """
    n_classes = int(class_of_name.max()) + 1
    targets = targets.to(pacl_logits.device)
    best: tuple[int, float] | None = None
    share = EQUAL_SHARE
    for step in range(N_STEPS + 1):
        mixed = fuse_logits(pacl_logits, clip_logits, step / N_STEPS)
        scores = max_over_names(mixed, class_of_name, n_classes).double()
        n_right = int((scores.argmax(dim=1) == targets).sum())
        loss = functional.cross_entropy(scores, targets).item()
        if best is None or (n_right, -loss) > best:
            best, share = (n_right, -loss), step / N_STEPS
    n_images = len(targets)
    return FusionWeight(share, n_images, best[0] / n_images if best and n_images else None)


def draw_evenly(
    targets: Int64[np.ndarray, " N"], n_images: int, *, seed: int
) -> Int64[np.ndarray, " M"]:
    """Rows of at most so many images, as equally many of each class as there are.

    Args:
        targets: Class of each image.
        n_images: How many to draw.
        seed: Seeds the draw within each class.

    Returns:
        Row numbers in ascending order.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    by_class = order[np.argsort(targets[order], kind="stable")]
    sorted_targets = targets[by_class]
    first_of_class = np.searchsorted(sorted_targets, sorted_targets)
    place = np.arange(len(by_class)) - first_of_class  # 0 for one image of each class, 1, ...
    return np.sort(by_class[np.argsort(place, kind="stable")][:n_images])
