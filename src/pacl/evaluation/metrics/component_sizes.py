"""IoU by the size of connected components of the truth.

Two pixels belong to one component if they have the same class and a side in common. A component is
small below 1/300 of its image, large from 3/100 on, and medium between: the 32² and 96² px of
COCO's detection metrics, as shares of its images of 640 × 480.

A false positive belongs to no component (as in Cityscapes' iIoU). Those of a class are charged to
its sizes in proportion to their pixels. With N and H the pixels of a class in the truth and those
of them that are found, of all sizes or of one size s, and F its false positives:

    IoU = H / (N + F),   IoU_s = H_s / (N_s + F N_s / N),   IoU = Σ_s N_s / N · IoU_s
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Integer

SIZES = ("small", "medium", "large")
LIMITS = ((1, 300), (3, 100))
"""Smallest share of an image that is medium, and that is large."""


class SizeCounts:
    """Pixels of the truth by size of component and class, and how many are found.

    Args:
        n_classes: C; classes are 0..C-1.
        n_rows: Predictions that are counted side by side.

    Attributes:
        pixels: (3, C), by SIZES.
        hits: (n_rows, 3, C).
    """

    def __init__(self, n_classes: int, *, n_rows: int) -> None:
        self.pixels = np.zeros((len(SIZES), n_classes), dtype=np.int64)
        self.hits = np.zeros((n_rows, len(SIZES), n_classes), dtype=np.int64)

    def update(
        self,
        predictions: Sequence[Integer[np.ndarray, "H W"]],
        target: Integer[np.ndarray, "H W"],
        runs: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]],
    ) -> None:
        """Add one image.

        Args:
            predictions: Class ids, one map per row.
            target: Class ids, of at least one pixel; other ids are not counted.
            runs: Of the target, as `pacl.results.regions.connect_runs` finds them.
        """
        starts, region = runs
        n_classes = self.pixels.shape[1]
        lengths, labels = np.diff(starts, append=target.size), target.ravel()[starts]
        areas = np.zeros(len(starts), dtype=np.int64)
        np.add.at(areas, region, lengths)
        sizes = np.zeros(len(starts), dtype=np.int64)
        for share, parts in LIMITS:
            sizes += areas[region] * parts >= target.size * share
        is_class = (labels >= 0) & (labels < n_classes)
        cells = np.where(is_class, sizes * n_classes + labels, self.pixels.size)
        self.pixels += self._sum(cells, lengths)
        for hits, prediction in zip(self.hits, predictions, strict=True):
            is_right = (prediction == target).ravel()
            hits += self._sum(cells, np.add.reduceat(is_right, starts, dtype=np.int64))

    def _sum(
        self, cells: Int[np.ndarray, " n"], n_pixels: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, "3 C"]:
        """Add up pixels of runs by size and class; cells beyond the last do not count."""
        n_cells = self.pixels.size
        sums = np.bincount(cells, weights=n_pixels, minlength=n_cells)[:n_cells]
        return sums.astype(np.int64).reshape(self.pixels.shape)

    def iou(
        self, row: int, *, n_true: Int[np.ndarray, " C"], n_false: Int[np.ndarray, " C"]
    ) -> Float[np.ndarray, "3 C"]:
        """IoU by size and class; nan where the truth has no component of that size.

        Args:
            row: Of which prediction.
            n_true: Pixels of each class in the truth; 0: the class is not scored.
            n_false: Its false positives.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            recall = np.where(n_true > 0, self.hits[row] / self.pixels, np.nan)
            return recall / (1 + n_false / n_true)
