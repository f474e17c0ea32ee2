"""A large label map strip by strip, so that no array beside it is as large as the image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

STRIP_PX = 1 << 18
"""Pixels of a strip, about."""


def row_strips(label_map: Int[np.ndarray, "H W"]) -> Iterator[slice]:
    """Cut an image into slices of its rows."""
    height, width = label_map.shape
    step = max(1, STRIP_PX // max(1, width))
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def count_labels(label_map: Int[np.ndarray, "H W"], n_labels: int) -> Int[np.ndarray, " labels"]:
    """Count the pixels of each label, from 0 = none to `n_labels`."""
    counts = np.zeros(n_labels + 1, dtype=np.int64)
    for rows in row_strips(label_map):
        counts += np.bincount(label_map[rows].ravel(), minlength=n_labels + 1)
    return counts


def sum_by_label(
    values: Float[np.ndarray, "H W"], label_map: Int[np.ndarray, "H W"], n_labels: int
) -> Float[np.ndarray, " labels"]:
    """Sum a value over the pixels of each label, from 0 = none to `n_labels`."""
    sums = np.zeros(n_labels + 1)
    for rows in row_strips(label_map):
        labels, weights = label_map[rows].ravel(), values[rows].ravel()
        sums += np.bincount(labels, weights=weights, minlength=n_labels + 1)
    return sums
