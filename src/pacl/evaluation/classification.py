"""Scoring zero-shot classification: accuracy on images with one true class each.

Three rows from one pass over the images: CLIP's own cosine, PACL's compatibility, and their
weighted mean, whose weight is chosen on training images or fixed at one half, never on the test.
Towers that are no CLIP have PACL's row alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pacl.api import Model
from pacl.data.prefetch import prefetch
from pacl.datasets.classification.dataset import ClassificationData, Split
from pacl.evaluation.fusion import (
    EQUAL_SHARE,
    FusionWeight,
    choose_clip_share,
    draw_evenly,
    fuse_logits,
    max_over_names,
)
from pacl.evaluation.metrics.classification import ClassAccuracy
from pacl.evaluation.records import without_nan
from pacl.inference.classifier import image_logits
from pacl.inference.vocabulary import Vocabulary
from pacl.modeling.pacl import Pacl

ROWS = ("clip", "pacl", "fusion")
N_TO_CHOOSE_ON = 2000
"""Training images that the fusion's weight is chosen on, where there are more."""
_N_READERS = 4


@dataclass(frozen=True)
class ScoreRow:
    """One score's accuracy on one set; every rate in [0, 1]."""

    top1: float
    top5: float
    """nan where there are no more than five classes."""
    mean_per_class: float
    per_class: tuple[float, ...]
    """nan for a class without images."""


@dataclass(frozen=True)
class SetReport:
    """Zero-shot classification of one data set by CLIP, by PACL and by both."""

    labels: tuple[str, ...]
    rows: dict[str, ScoreRow]
    """By score, one of ROWS."""
    fusion: FusionWeight | None
    """None: there is no CLIP to fuse with."""
    n_images: int

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; nan becomes null, and per class the name is the key."""
        rows = {
            score: asdict(row) | {"per_class": dict(zip(self.labels, row.per_class, strict=True))}
            for score, row in self.rows.items()
        }
        fusion = self.fusion and asdict(self.fusion)
        return without_nan({"n_images": self.n_images, "rows": rows, "fusion": fusion})


class ClassificationScores:
    """Counts of right answers of one model on one data set; see `evaluate_set`.

    Args:
        keys: Identify model, data and protocol, in the present form and in older ones.

    Attributes:
        n_done: Images counted.
        seconds: Time spent so far, in earlier runs too.
    """

    def __init__(
        self,
        model: Model,
        data: ClassificationData,
        *,
        templates: Sequence[str],
        patch_stride_px: int | None = None,
        batch_size: int = 64,
        n_to_choose_on: int = N_TO_CHOOSE_ON,
        seed: int = 0,
        keys: tuple[str, ...] = ("",),
    ) -> None:
        self.keys = keys
        self.n_done = 0
        self.seconds = 0.0
        self._data = data
        self._reader = _Reader(
            model.pacl,
            model.vocabulary(data.labels, templates=templates),
            patch_stride_px,
            batch_size,
        )
        self._n_to_choose_on = n_to_choose_on
        self._seed = seed
        self._fusion: FusionWeight | None = None
        scores = ROWS if model.pacl.is_clip else ("pacl",)
        self._counts = {score: ClassAccuracy(len(data.labels)) for score in scores}

    @property
    def n_images(self) -> int:
        """Images in all."""
        return len(self._data.test)

    def iter_scored(self) -> Iterator[str]:
        """Choose the fusion's weight, if any, on training images, then classify the test images.

        Yields:
            A few words after each batch.

        Raises:
            InputError: An image cannot be read.
        """
        started_s = time.perf_counter() - self.seconds
        reader, vocabulary = self._reader, self._reader.vocabulary
        if self._fusion is None and "fusion" in self._counts:
            self._fusion = yield from _choose_fusion(
                reader, self._data.train, n_images=self._n_to_choose_on, seed=self._seed
            )
        rows = range(self.n_done, self.n_images)
        for logits, targets in reader.iter_logits(self._data.test, rows):
            if self._fusion is not None:
                share = self._fusion.clip_share
                logits["fusion"] = fuse_logits(logits["pacl"], logits["clip"], share)
            for score, accuracy in self._counts.items():
                of_classes = max_over_names(
                    logits[score], vocabulary.class_of_name, len(self._data.labels)
                )
                accuracy.update(of_classes, targets)
            self.n_done += len(targets)
            self.seconds = time.perf_counter() - started_s
            yield f"top-1 {self._counts['pacl'].top1():.1%}"

    def state(self) -> dict[str, np.ndarray]:
        """All counts, to be kept."""
        fusion = () if self._fusion is None else astuple(self._fusion)
        return {
            "n_done": np.array(self.n_done),
            "seconds": np.array(self.seconds),
            "fusion": np.array(fusion, dtype=np.float64),  # None becomes nan
            "counts": np.array([each.to_json() for each in self._counts.values()]),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up counts that `state` returned."""
        counts = [ClassAccuracy.from_json(table) for table in state["counts"].tolist()]
        self._counts = dict(zip(self._counts, counts, strict=True))
        self.n_done, self.seconds = int(state["n_done"]), float(state["seconds"])
        if len(state["fusion"]):
            share, n_images, top1 = state["fusion"].tolist()
            self._fusion = FusionWeight(share, int(n_images), None if math.isnan(top1) else top1)

    def report(self) -> SetReport:
        """The accuracies, once all images are counted."""
        return SetReport(
            labels=self._data.labels.names,
            rows={score: _read_row(accuracy) for score, accuracy in self._counts.items()},
            fusion=self._fusion,
            n_images=self.n_done,
        )


def evaluate_set(
    model: Model,
    data: ClassificationData,
    *,
    templates: Sequence[str],
    patch_stride_px: int | None = None,
    batch_size: int = 64,
    n_to_choose_on: int = N_TO_CHOOSE_ON,
    seed: int = 0,
) -> SetReport:
    """Classify the test images of a data set with its class names.

    Args:
        model: Any CLIP, with an embedder or as a training-free baseline; or any pair of towers
            with an embedder.
        data: Images and classes.
        templates: Prompts the class names are put in.
        patch_stride_px: Distance between the patches that PACL compares; None: the patch size.
        batch_size: Images encoded together.
        n_to_choose_on: Training images for the fusion's weight, as many of each class.
        seed: Seeds the sampling of those.

    Raises:
        InputError: An image cannot be read: a score over some of them is of another data set.
    """
    scores = ClassificationScores(
        model,
        data,
        templates=templates,
        patch_stride_px=patch_stride_px,
        batch_size=batch_size,
        n_to_choose_on=n_to_choose_on,
        seed=seed,
    )
    for _ in scores.iter_scored():
        pass
    return scores.report()


@dataclass(frozen=True, eq=False)
class _Reader:
    """Images to logits."""

    pacl: Pacl
    vocabulary: Vocabulary
    patch_stride_px: int | None
    batch_size: int

    def iter_logits(
        self, split: Split, rows: Sequence[int]
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """The logits of batches of images, by score, and the images' classes.

        While one batch is encoded, threads read the next.
        """

        def read(row: int) -> Tensor:
            return self.pacl.vision.prepare(split.images.open(row))

        size = self.batch_size
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        for batch, images in prefetch(read, batches, workers=_N_READERS):
            yield self._score(torch.stack(images)), torch.from_numpy(split.targets[list(batch)])

    @torch.inference_mode()
    def _score(self, images: Tensor) -> dict[str, Tensor]:
        texts, stride_px = self.vocabulary.text_embeds, self.patch_stride_px
        return {
            score: image_logits(self.pacl, images, texts, score=score, patch_stride_px=stride_px)
            for score in (("clip", "pacl") if self.pacl.is_clip else ("pacl",))
        }


def _choose_fusion(
    reader: _Reader, train: Split | None, *, n_images: int, seed: int
) -> Generator[str, None, FusionWeight]:
    """Return the fusion's weight; yields a few words after each batch of training images."""
    if train is None or n_images == 0:
        return FusionWeight(EQUAL_SHARE, n_images=0, top1=None)
    rows = draw_evenly(train.targets, n_images, seed=seed).tolist()
    parts: list[tuple[Tensor, ...]] = []
    n_done = 0
    for logits, targets in reader.iter_logits(train, rows):
        parts.append((logits["pacl"].cpu(), logits["clip"].cpu(), targets))
        n_done += len(targets)
        yield f"{n_done:,} of {len(rows):,} training images"
    of_pacl, of_clip, of_all = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return choose_clip_share(
        of_pacl, of_clip, of_all, class_of_name=reader.vocabulary.class_of_name.cpu()
    )


def _read_row(accuracy: ClassAccuracy) -> ScoreRow:
    return ScoreRow(
        top1=accuracy.top1(),
        top5=accuracy.top5(),
        mean_per_class=accuracy.mean_per_class(),
        per_class=tuple(accuracy.per_class().tolist()),
    )
