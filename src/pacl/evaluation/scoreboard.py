"""Pixel counts of a data set, image by image: scores, and a state that a later run goes on from."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Integer

from pacl.evaluation.metrics.segmentation import ConfusionMatrix
from pacl.runtime.files import write_atomically


@dataclass(frozen=True)
class SegmentationReport:
    """Scores of one method on one data set; every rate in [0, 1]."""

    labels: tuple[str, ...]
    iou: tuple[float, ...]
    """Per class; nan where the class is neither in the truth nor predicted."""
    miou: float
    """Mean over the classes that are not nan."""
    pixel_accuracy: float
    mean_accuracy: float
    """Mean over classes of the share of their pixels found."""
    n_images: int
    seconds: float
    protocol: dict[str, Any]
    """Everything that decides the numbers besides model and data."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; nan becomes null."""
        values = asdict(self) | {"iou": dict(zip(self.labels, map(no_nan, self.iou), strict=True))}
        return {name: no_nan(value) for name, value in values.items()}


class Scoreboard:
    """One confusion matrix per row of results, over all images, and each image's own mIoU.

    Args:
        rows: names of the results that are scored side by side.
        n_classes: C.
        ignore_label: truth id that is not scored.

    Attributes:
        image_miou: per row, the mIoU of each image scored so far, over the classes that are in its
            truth or its prediction; nan for an image without a scored pixel.
        seconds: what earlier runs took, see `resume`.
    """

    def __init__(self, rows: Sequence[str], n_classes: int, *, ignore_label: int) -> None:
        self.rows = tuple(rows)
        self._new = lambda: ConfusionMatrix(n_classes, ignore_label=ignore_label)
        self._matrices = [self._new() for _ in self.rows]
        self.image_miou: list[list[float]] = [[] for _ in self.rows]
        self.seconds = 0.0

    @property
    def n_images(self) -> int:
        """How many images are scored."""
        return len(self.image_miou[0])

    def update(
        self,
        predictions: Sequence[Integer[np.ndarray, "H W"]],
        target: Integer[np.ndarray, "H W"],
    ) -> None:
        """Add the next image: one label map per row (class ids, -1 for none), and its truth."""
        for prediction, total, scores in zip(
            predictions, self._matrices, self.image_miou, strict=True
        ):
            matrix = self._new()
            matrix.update(prediction, target)
            scores.append(matrix.mean_iou())
            total.merge(matrix)

    def miou(self, row: int = 0) -> float:
        """The data set's mIoU so far, in [0, 1]; nan before the first scored pixel."""
        return self._matrices[row].mean_iou()

    def report(
        self, row: int, *, labels: tuple[str, ...], seconds: float, protocol: dict[str, Any]
    ) -> SegmentationReport:
        """The scores of one row."""
        matrix = self._matrices[row]
        return SegmentationReport(
            labels=labels,
            iou=tuple(matrix.iou().tolist()),
            miou=matrix.mean_iou(),
            pixel_accuracy=matrix.pixel_accuracy(),
            mean_accuracy=matrix.mean_accuracy(),
            n_images=self.n_images,
            seconds=seconds,
            protocol=protocol,
        )

    def save(self, path: Path, *, key: str, seconds: float) -> None:
        """Write all counts, whole or not at all.

        Args:
            path: the state file.
            key: what these counts are of; only a run with the same key goes on from them.
            seconds: spent so far.

        Raises:
            EnvironmentProblem: the disk is full or cannot be written.
        """
        buffer = io.BytesIO()
        np.savez(
            buffer,
            key=np.array(key),
            seconds=np.array(seconds),
            tables=torch.stack([matrix.table for matrix in self._matrices]).numpy(),
            image_miou=np.array(self.image_miou, dtype=np.float64),
        )
        write_atomically(path, buffer.getvalue())

    def resume(self, path: Path, *, key: str) -> bool:
        """Take up the counts of an earlier run, if path holds some with the same key.

        Returns: whether there were any. A file that cannot be read counts as none.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as state:
                if str(state["key"]) != key:
                    return False
                tables, image_miou = torch.from_numpy(state["tables"]), state["image_miou"]
                self.seconds = float(state["seconds"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # none, or damaged
            return False
        for matrix, table in zip(self._matrices, tables, strict=True):
            matrix.add_table(table)
        self.image_miou = image_miou.tolist()
        return True


def rank_images(image_miou: Sequence[float]) -> dict[str, int]:
    """Index of the best, the median and the worst image; images without a score are left out.

    Of an even number the lower of the two middle ones is taken. Empty where no image has a score;
    where there are fewer than three, one image may be several.
    """
    scored = [k for k, miou in enumerate(image_miou) if not math.isnan(miou)]
    ranked = sorted(scored, key=lambda k: (image_miou[k], k))
    if not ranked:
        return {}
    return {"best": ranked[-1], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[0]}


def no_nan(value: Any) -> Any:
    """The value, or None for nan, which JSON does not have."""
    return None if isinstance(value, float) and math.isnan(value) else value
