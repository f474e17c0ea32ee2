"""Scoring segmentation against ground truth: mIoU on images with masks.

One confusion matrix for the whole data set, at each image's original resolution, ignored pixels
left out, classes absent from truth and prediction skipped in the mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from pacl.api import Model
from pacl.data.images import open_image
from pacl.datasets.segmentation.masks import MaskDataset, MaskItem
from pacl.datasets.segmentation.read_ahead import Example, iter_read
from pacl.evaluation.metrics.segmentation import ConfusionMatrix
from pacl.evaluation.predictor import Predictor, build_predictor
from pacl.evaluation.scoreboard import Scoreboard, SegmentationReport
from pacl.evaluation.task import build_task
from pacl.inference.config import SegmentConfig
from pacl.results import Segmentation
from pacl.runtime.stopwatch import Stopwatch

Item = TypeVar("Item")
SegmentBatch = Callable[[Sequence[Image.Image]], list[Segmentation]]
"""Segments a batch of pictures; label k of a result stands for class id k - 1 of the masks."""
Predict = Callable[[list[Example[Any]]], list[list[np.ndarray]]]
"""Pictures → per picture, one map of class ids per row of results."""
OnProgress = Callable[[int, int, float], None]
"""Told the images done, the images in all and the mIoU so far."""

SAVE_EVERY_S = 10.0


@dataclass(frozen=True)
class TaskResult:
    """Scores of one model on one task."""

    rows: dict[str, SegmentationReport]
    """By "without PAMR" and, where the task has it, "with PAMR"."""
    image_miou: tuple[float, ...]
    """Of each image, without PAMR; nan where nothing is scored."""
    n_resumed: int
    """Images that an interrupted run had scored before."""


def evaluate_task(
    predictor: Predictor,
    *,
    state_path: Path | None = None,
    save_every_s: float = SAVE_EVERY_S,
    on_progress: OnProgress | None = None,
) -> TaskResult:
    """Segment every image of a data set under a protocol and compare with its masks.

    Args:
        predictor: a model under a task's protocol; its stopwatch is told where the time goes.
        state_path: where counts are kept meanwhile; what an interrupted run left there for the
            same model, protocol and data is gone on from. At the end it holds the whole result;
            remove it once that is kept.
        save_every_s: how often.
        on_progress: called after each batch.

    Raises:
        InputError: an image or a mask cannot be read: a score over some of the images would be
            of another data set.
    """
    task, dataset = predictor.task, predictor.task.dataset
    board = Scoreboard(predictor.rows, len(dataset.labels), ignore_label=dataset.ignore_label)
    key = "" if state_path is None else task.key(predictor.fingerprint)
    if state_path is not None:
        board.resume(state_path, key=key)
    n_resumed, started_s = board.n_images, time.perf_counter() - board.seconds
    saved_s = time.perf_counter()
    batches = iter_batches(dataset.items[n_resumed:], task.config.batch_size)
    reading = iter_read(dataset, batches, predictor.prepare)
    for _ in _iter_scored(reading, predictor.predict, board, predictor.stopwatch):
        if state_path is not None and time.perf_counter() - saved_s >= save_every_s:
            board.save(state_path, key=key, seconds=time.perf_counter() - started_s)
            saved_s = time.perf_counter()
        if on_progress is not None:
            on_progress(board.n_images, len(dataset), board.miou())
    rows = {
        name: board.report(
            row,
            labels=dataset.labels.names,
            seconds=time.perf_counter() - started_s,
            protocol=task.protocol(),
        )
        for row, name in enumerate(predictor.rows)
    }
    if state_path is not None:
        board.save(state_path, key=key, seconds=time.perf_counter() - started_s)
    return TaskResult(rows, tuple(board.image_miou[0]), n_resumed)


def evaluate_folder(
    model: Model,
    dataset: MaskDataset,
    *,
    config: SegmentConfig | None = None,
    on_progress: OnProgress | None = None,
) -> SegmentationReport:
    """Score a model on images with masks, with settings of one's own and the data set's names.

    Args:
        model: Any CLIP, with an embedder or as a training-free baseline.
        dataset: Images, masks, class names, ids to ignore.
        config: Sizes, windows, background rule; None: the defaults.
        on_progress: Called with the images done, the images in all and the mIoU so far.

    Raises:
        InputError: As for `evaluate_task`.
    """
    task = build_task("folder", dataset, preset=None, config=config, templates=model.templates)
    [report] = evaluate_task(build_predictor(model, task), on_progress=on_progress).rows.values()
    return report


def evaluate_segmenter(
    segment: SegmentBatch,
    dataset: MaskDataset,
    *,
    batch_size: int,
    protocol: dict[str, Any],
    on_progress: OnProgress | None = None,
) -> SegmentationReport:
    """The same for any function that segments pictures."""

    def predict(examples: list[Example[None]]) -> list[list[np.ndarray]]:
        return [[result.label_map - 1] for result in segment([each.image for each in examples])]

    started_s = time.perf_counter()
    board = Scoreboard(("result",), len(dataset.labels), ignore_label=dataset.ignore_label)
    reading = iter_read(dataset, iter_batches(dataset.items, batch_size), lambda _: None)
    for _ in _iter_scored(reading, predict, board, Stopwatch()):
        if on_progress is not None:
            on_progress(board.n_images, len(dataset), board.miou())
    seconds = time.perf_counter() - started_s
    return board.report(0, labels=dataset.labels.names, seconds=seconds, protocol=protocol)


def _iter_scored(
    reading: Iterator[list[Example[Any]]], predict: Predict, board: Scoreboard, watch: Stopwatch
) -> Iterator[None]:
    """Score what is read; yields after each batch, when the board is whole."""
    while True:
        with watch.time("waiting for images"):
            examples = next(reading, None)
        if examples is None:
            return
        for example in examples:
            watch.add_background(example.seconds)
        predictions = predict(examples)
        with watch.time("metrics"):
            for of_image, example in zip(predictions, examples, strict=True):
                board.update(of_image, example.mask)
        yield


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
