"""How far a score would move on other images: the bootstrap over images (Efron 1979).

What is drawn again, with replacement, are whole images, because patches of one image are alike. An
image that is drawn twice counts twice. Nothing is encoded or compared again: each score is read
off numbers kept per image, or per pair of patches with the images they come from, weighted by how
often each image was drawn.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def draw_images(n_images: int, n_resamples: int, *, seed: int) -> Int[Tensor, "resamples images"]:
    """How often each image is drawn in each resample of as many images.

    Args:
        n_images: N.
        n_resamples: R.
        seed: Seeds the draw.

    Returns:
        (R, N) counts; each row sums to N.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n_images, (n_resamples, n_images), generator=generator)
    counts = torch.zeros(n_resamples, n_images, dtype=torch.int64)
    return counts.scatter_add_(1, drawn, torch.ones_like(drawn))


def resample_share(
    n_right: Int[Tensor, " images"],
    n_all: Int[Tensor, " images"],
    counts: Int[Tensor, "resamples images"],
) -> Float[Tensor, " resamples"]:
    """A share over all images, such as patch accuracy, in each resample.

    Args:
        n_right: Per image, what is right.
        n_all: Per image, what is counted; 0 where an image has nothing.
        counts: As `draw_images` returns them.

    Returns:
        (R,) float64 in [0, 1]; nan where nothing is counted.
    """
    weights = counts.double()
    return (weights @ n_right.double()) / (weights @ n_all.double())


def resample_auroc(
    scores: Float[Tensor, " pairs"],
    is_positive: Bool[Tensor, " pairs"],
    *,
    first_image: Int[Tensor, " pairs"],
    second_image: Int[Tensor, " pairs"],
    counts: Int[Tensor, "resamples images"],
) -> Float[Tensor, " resamples"]:
    """The area under the ROC curve of pairs of patches, in each resample of the images.

    Args:
        scores: One per pair, high where it should be positive.
        is_positive: True for a positive pair.
        first_image: Image of the pair's one patch.
        second_image: Image of the other.
        counts: As `draw_images` returns them.

    Returns:
        (R,) float64 in [0, 1], ties counting half; nan where no pair of a kind is left.

    A pair of two images counts as often as the product of their draws. A pair within an image
    counts as often as the image was drawn: between two copies of one image no pairs are made, for
    they would compare a patch with itself.
    """
    order = scores.argsort()
    positive = is_positive[order].numpy().astype(np.float64)
    first, second = first_image[order].numpy(), second_image[order].numpy()
    n_images = counts.shape[1]
    second = np.where(first == second, n_images, second)  # there stands a 1
    tables = np.concatenate([counts.numpy(), np.ones((len(counts), 1))], axis=1)
    group = _tie_groups(scores[order].numpy())
    areas = [_area(table[first] * table[second], positive, group) for table in tables]
    return torch.tensor(areas, dtype=torch.float64)


def percentile_interval(
    values: Float[Tensor, " resamples"], *, confidence: float
) -> tuple[float, float]:
    """The middle share of the values, as large as the confidence, in (0, 1); nan values apart.

    Returns:
        Lower and upper end; nan where there are no values.
    """
    known = values[~values.isnan()].double()
    if len(known) == 0:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    ends = torch.quantile(known, torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return ends[0].item(), ends[1].item()


def _tie_groups(sorted_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """For each pair the first and the last with the same score; None where all scores differ."""
    is_new = sorted_scores[1:] != sorted_scores[:-1]
    if is_new.all():
        return None
    number = np.concatenate([[0], is_new.cumsum()])
    size = np.bincount(number)
    last = size.cumsum() - 1
    return (last - size + 1)[number], last[number]


def _area(
    weights: np.ndarray, positive: np.ndarray, group: tuple[np.ndarray, np.ndarray] | None
) -> float:
    """The area for weighted pairs (P,) in ascending order of their scores; all are whole numbers.

    A negative pair is in the wrong order with all positive ones before it, and half so with those
    of the same score.
    """
    of_positive = weights * positive
    before = of_positive.cumsum()
    n_positive, n_all = before[-1], weights.sum()
    if group is not None:
        first, last = group
        before = (before[first] - of_positive[first] + before[last]) / 2
    n_wrong = (before @ weights) - (before @ of_positive)
    n_comparisons = n_positive * (n_all - n_positive)
    return 1 - n_wrong / n_comparisons if n_comparisons else float("nan")
