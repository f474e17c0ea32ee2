"""How often the true class of an image is the best one, or among the best five."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

TOP_K = 5


class ClassAccuracy:
    """Counts of right answers per class, and the rates read off them.

    Args:
        n_classes: C; classes are 0..C-1.

    Raises:
        ValueError: `n_classes` is below 1.
    """

    def __init__(self, n_classes: int) -> None:
        if n_classes < 1:
            raise ValueError(f"n_classes must be at least 1, got {n_classes}")
        self.n_classes = n_classes
        self._counts = torch.zeros(3, n_classes, dtype=torch.int64)  # images, first, among 5

    @property
    def n_images(self) -> int:
        """Images counted."""
        return int(self._counts[0].sum())

    def update(
        self, scores: Float[Tensor, "images classes"], targets: Integer[Tensor, " images"]
    ) -> None:
        """Add some images.

        Args:
            scores: (I, C), the higher the likelier. Of equal scores the lower class goes first,
                as argmax has it.
            targets: (I,) true classes.

        Raises:
            ValueError: The shapes do not fit, a class is out of range, or a score is nan.
        """
        if scores.ndim != 2 or scores.shape != (len(targets), self.n_classes):
            raise ValueError(
                f"scores must be ({len(targets)}, {self.n_classes}), got {tuple(scores.shape)}"
            )
        if scores.isnan().any():
            raise ValueError("scores must not be nan: no answer would be right or wrong")
        targets = targets.to(scores.device, torch.int64)
        if len(targets) and not (int(targets.min()) >= 0 and int(targets.max()) < self.n_classes):
            raise ValueError(f"targets must be in 0..{self.n_classes - 1}")
        rank = rank_of_target(scores, targets)
        rows = (torch.ones_like(rank, dtype=torch.bool), rank == 0, rank < TOP_K)
        for row, is_counted in enumerate(rows):
            found = torch.bincount(targets[is_counted], minlength=self.n_classes)
            self._counts[row] += found.cpu()

    def top1(self) -> float:
        """Share of the images whose best class is the true one, in [0, 1]; nan before any."""
        return self._share(1)

    def top5(self) -> float:
        """Share whose true class is among the best five; nan where there are no more than five."""
        return self._share(2) if self.n_classes > TOP_K else float("nan")

    def per_class(self) -> Float[Tensor, " classes"]:
        """Share of each class's images that is right, (C,) float64; NaN without images."""
        return self._counts[1].double() / self._counts[0]

    def mean_per_class(self) -> float:
        """Mean of per_class() over the classes that have images, in [0, 1]."""
        return self.per_class().nanmean().item()

    def to_json(self) -> list[list[int]]:
        """The counts: images, right, among the best five; one number per class each."""
        return self._counts.tolist()

    @classmethod
    def from_json(cls, counts: Any) -> ClassAccuracy:
        """Back from to_json.

        Raises:
            ValueError: These are no such counts.
        """
        table = torch.tensor(counts, dtype=torch.int64)
        if table.ndim != 2 or len(table) != 3:
            raise ValueError(f"counts must be (3, C), got {tuple(table.shape)}")
        accuracy = cls(table.shape[1])
        accuracy._counts = table
        return accuracy

    def _share(self, row: int) -> float:
        return (self._counts[row].sum().double() / self._counts[0].sum()).item()


def rank_of_target(
    scores: Float[Tensor, "images classes"], targets: Int[Tensor, " images"]
) -> Int[Tensor, " images"]:
    """How many classes come before the true one, 0 to C-1; equal scores go by class id."""
    own = scores.gather(1, targets[:, None])
    is_before = torch.arange(scores.shape[1], device=scores.device) < targets[:, None]
    return ((scores > own) | ((scores == own) & is_before)).sum(dim=1)
