"""Scoring segmentation against ground truth: mIoU on images with masks.

One confusion matrix for the whole data set, at each image's original resolution, ignored pixels
left out, classes absent from truth and prediction skipped in the mean.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from PIL import Image

from pacl.api import Model
from pacl.data.images import open_image
from pacl.data.masks import MaskDataset, MaskItem
from pacl.metrics import ConfusionMatrix
from pacl.results import Segmentation
from pacl.segment_config import SegmentConfig

Item = TypeVar("Item")
SegmentBatch = Callable[[Sequence[Image.Image]], list[Segmentation]]
"""Segments a batch of pictures; label k of a result stands for class id k - 1 of the masks."""


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
        values = asdict(self) | {"iou": dict(zip(self.labels, map(_no_nan, self.iou), strict=True))}
        return {name: _no_nan(value) for name, value in values.items()}


def evaluate_folder(
    model: Model,
    dataset: MaskDataset,
    *,
    config: SegmentConfig | None = None,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> SegmentationReport:
    """Segment every image with the data set's class names and compare with its masks.

    Args:
        model: Any CLIP, with an embedder or as a training-free baseline.
        dataset: Images, masks, class names, ids to ignore.
        config: Sizes, windows, background rule; None: the defaults.
        on_progress: Called with the images done, the images in all and the mIoU so far.

    Raises:
        InputError: An image or a mask cannot be read: a score over some of the images would be
            of another data set.
    """
    config = config or SegmentConfig()
    protocol = {
        "candidates": "all classes",
        "templates": list(model.templates),
        "n_prompts": sum(len(prompts) for prompts in dataset.labels.prompts),
        "resolution": "original",
        **asdict(config),
    }
    return evaluate_segmenter(
        lambda images: model.segment_batch(images, dataset.labels, config=config),
        dataset,
        batch_size=config.batch_size,
        protocol=protocol,
        on_progress=on_progress,
    )


def evaluate_segmenter(
    segment: SegmentBatch,
    dataset: MaskDataset,
    *,
    batch_size: int,
    protocol: dict[str, Any],
    on_progress: Callable[[int, int, float], None] | None = None,
) -> SegmentationReport:
    """The same for any function that segments pictures."""
    started_s = time.perf_counter()
    matrix = ConfusionMatrix(len(dataset.labels), ignore_label=dataset.ignore_label)
    n_done = 0
    for items in iter_batches(dataset.items, batch_size):
        results = segment([open_image(item.image_path) for item in items])
        for item, result in zip(items, results, strict=True):
            matrix.update(result.label_map - 1, dataset.read_mask(item))
        n_done += len(items)
        if on_progress is not None:
            on_progress(n_done, len(dataset), matrix.mean_iou())
    return SegmentationReport(
        labels=dataset.labels.names,
        iou=tuple(matrix.iou().tolist()),
        miou=matrix.mean_iou(),
        pixel_accuracy=matrix.pixel_accuracy(),
        mean_accuracy=matrix.mean_accuracy(),
        n_images=len(dataset),
        seconds=time.perf_counter() - started_s,
        protocol=protocol,
    )


def evaluate_phrases(
    model: Model,
    dataset: MaskDataset,
    labels: Sequence[str],
    phrases: Sequence[str],
    *,
    config: SegmentConfig | None = None,
) -> dict[str, float]:
    """IoU of things that are asked for by a phrase ("a purple boat") in place of their class.

    Args:
        model: Any CLIP, with an embedder or as a training-free baseline.
        dataset: Images and masks.
        labels: Per image, the class the phrase stands for; the other classes keep their names.
        phrases: Per image, the phrase.
        config: As in `evaluate_folder`.

    Returns:
        per class that was asked for, the IoU over all its images, in [0, 1].
    """
    config = config or SegmentConfig()
    matrices = {label: ConfusionMatrix(len(dataset.labels), ignore_label=dataset.ignore_label)
                for label in dict.fromkeys(labels)}  # fmt: skip
    rows_of: dict[tuple[str, str], list[MaskItem]] = {}
    for item, label, phrase in zip(dataset.items, labels, phrases, strict=True):
        rows_of.setdefault((label, phrase), []).append(item)
    for (label, phrase), all_items in rows_of.items():
        words = {name: phrase if name == label else name for name in dataset.labels.names}
        for items in iter_batches(all_items, config.batch_size):
            images = [open_image(item.image_path) for item in items]
            results = model.segment_batch(images, words, config=config)
            for item, result in zip(items, results, strict=True):
                matrices[label].update(result.label_map - 1, dataset.read_mask(item))
    names = dataset.labels.names
    return {label: matrix.iou()[names.index(label)].item() for label, matrix in matrices.items()}


def iter_batches(items: Sequence[Item], batch_size: int) -> Iterator[Sequence[Item]]:
    """Consecutive slices of at most `batch_size`."""
    for start in range(0, len(items), batch_size):
        yield items[start : start + batch_size]


def _no_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
