"""Pixel counts of a data set, image by image, and the scores read off them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer

from pacl.evaluation.metrics.component_sizes import SIZES, SizeCounts
from pacl.evaluation.metrics.segmentation import ConfusionMatrix
from pacl.evaluation.predictor import Predictor
from pacl.evaluation.records import without_nan
from pacl.results.regions import connect_runs

WAITING = "waiting for images"
FIGURES = (
    "iou", "miou", "pixel_accuracy", "mean_accuracy", "n_zero_iou", "n_present", "miou_by_size"
)  # fmt: skip
"""What a record keeps of a report."""


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
    n_zero_iou: int
    """Classes of the truth whose IoU is 0: never found where they are."""
    n_present: int
    """Classes of the truth."""
    miou_by_size: dict[str, float]
    """The same mean for small, medium and large components of the truth, see
    `pacl.evaluation.metrics.component_sizes`; nan where there are none of a size."""
    n_images: int
    seconds: float
    protocol: dict[str, Any]
    """Everything that decides the numbers besides model and data."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; nan becomes null."""
        return without_nan(asdict(self) | {"iou": dict(zip(self.labels, self.iou, strict=True))})


class Scoreboard:
    """One confusion matrix per row of results, over all images, and each image's own mIoU.

    Args:
        rows: Names of the results that are scored side by side.
        n_classes: C.
        ignore_label: Truth id that is not scored.

    Attributes:
        image_miou: Per row, the mIoU of each image scored so far, over the classes that are in its
            truth or its prediction; nan for an image without a scored pixel.
    """

    def __init__(self, rows: Sequence[str], n_classes: int, *, ignore_label: int) -> None:
        self.rows = tuple(rows)
        self._new = lambda: ConfusionMatrix(n_classes, ignore_label=ignore_label)
        self._matrices = [self._new() for _ in self.rows]
        self._sizes = SizeCounts(n_classes, n_rows=len(self.rows))
        self.image_miou: list[list[float]] = [[] for _ in self.rows]

    @property
    def n_images(self) -> int:
        """Images scored."""
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
        if target.size:
            self._sizes.update(predictions, target, connect_runs(target))

    def miou(self, row: int = 0) -> float:
        """The data set's mIoU so far, in [0, 1]; nan before the first scored pixel."""
        return self._matrices[row].mean_iou()

    def report(
        self, row: int, *, labels: tuple[str, ...], seconds: float, protocol: dict[str, Any]
    ) -> SegmentationReport:
        """The scores of one row."""
        matrix, iou = self._matrices[row], self._matrices[row].iou()
        is_present = (matrix.n_true() > 0) & ~iou.isnan()
        return SegmentationReport(
            labels=labels,
            iou=tuple(iou.tolist()),
            miou=matrix.mean_iou(),
            pixel_accuracy=matrix.pixel_accuracy(),
            mean_accuracy=matrix.mean_accuracy(),
            n_zero_iou=int(((iou == 0) & is_present).sum()),
            n_present=int(is_present.sum()),
            miou_by_size=self._miou_by_size(row),
            n_images=self.n_images,
            seconds=seconds,
            protocol=protocol,
        )

    def _miou_by_size(self, row: int) -> dict[str, float]:
        matrix = self._matrices[row]
        iou = self._sizes.iou(row, n_true=matrix.n_true().numpy(), n_false=matrix.n_false().numpy())
        return {
            size: float(np.nanmean(of_size)) if not np.isnan(of_size).all() else math.nan
            for size, of_size in zip(SIZES, iou, strict=True)
        }

    def state(self) -> dict[str, np.ndarray]:
        """All counts, to be kept."""
        return {
            "size_pixels": self._sizes.pixels,
            "size_hits": self._sizes.hits,
            "tables": torch.stack([matrix.table for matrix in self._matrices]).numpy(),
            "image_miou": np.array(self.image_miou, dtype=np.float64),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up the counts that `state` returned, in place of none.

        Raises:
            KeyError: Some are missing, as in states written before there were sizes.
            ValueError: They are of other rows or classes.
        """
        tables, image_miou = torch.from_numpy(state["tables"]), state["image_miou"]
        pixels, hits = state["size_pixels"], state["size_hits"]
        for matrix, table in zip(self._matrices, tables, strict=True):
            matrix.add_table(table)
        self._sizes.pixels, self._sizes.hits = pixels, hits
        self.image_miou = image_miou.tolist()


class SegmentationScores:
    """Pixel counts of one model on one data set under a protocol.

    Args:
        predictor: A model under a task's protocol; its stopwatch counts where the time goes.
        keys: Identify model, data and protocol, in the present form and in older ones; None: as
            the predictor's fingerprint says.

    Attributes:
        predictor: As given.
        seconds: Time spent so far, in earlier runs too.
    """

    def __init__(self, predictor: Predictor, *, keys: tuple[str, ...] | None = None) -> None:
        self.predictor = predictor
        self.seconds = 0.0
        self._keys = keys
        dataset = predictor.task.dataset
        self._board = Scoreboard(
            predictor.rows, len(dataset.labels), ignore_label=dataset.ignore_label
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """What these counts are of."""
        if self._keys is None:
            self._keys = (self.predictor.task.key(self.predictor.fingerprint),)
        return self._keys

    @property
    def n_images(self) -> int:
        """Images in all."""
        return len(self.predictor.task.dataset)

    @property
    def n_done(self) -> int:
        """Images counted."""
        return self._board.n_images

    @property
    def image_miou(self) -> tuple[float, ...]:
        """The mIoU of each image, without PAMR; NaN where nothing is scored."""
        return tuple(self._board.image_miou[0])

    def miou(self) -> float:
        """The data set's mIoU so far, without PAMR, in [0, 1]."""
        return self._board.miou()

    def iter_scored(self) -> Iterator[str]:
        """Segment the images that are not done and compare them with their masks.

        Yields:
            A few words after each batch.

        Raises:
            InputError: An image or a mask cannot be read.
        """
        predictor, watch = self.predictor, self.predictor.stopwatch
        started_s = time.perf_counter() - self.seconds
        reading = predictor.iter_examples(predictor.task.dataset.items[self.n_done :])
        while True:
            with predictor.time(WAITING):
                examples = next(reading, None)
            if examples is None:
                return
            if watch is not None:
                for example in examples:
                    watch.add_background(example.seconds)
            predictions = predictor.predict(examples)
            with predictor.time("metrics"):
                for of_image, example in zip(predictions, examples, strict=True):
                    self._board.update(of_image, example.mask)
            self.seconds = time.perf_counter() - started_s
            yield f"mIoU {self.miou():.3f}"

    def state(self) -> dict[str, np.ndarray]:
        """All counts, to be kept."""
        return self._board.state() | {"seconds": np.array(self.seconds)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up counts that `state` returned."""
        self._board.restore(state)
        self.seconds = float(state["seconds"])

    def reports(self) -> dict[str, SegmentationReport]:
        """By "without PAMR" and, where the task has it, "with PAMR"."""
        task = self.predictor.task
        return {
            name: self._board.report(
                row,
                labels=task.dataset.labels.names,
                seconds=self.seconds,
                protocol=task.protocol(),
            )
            for row, name in enumerate(self.predictor.rows)
        }


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
