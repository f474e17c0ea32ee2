"""Scoring zero-shot classification: accuracy on pictures with one true class each.

Three rows from one pass over the pictures: CLIP's own cosine, PACL's compatibility, and their
weighted mean, whose weight is chosen on training pictures or fixed at one half, never on the test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pacl.api import Model
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
from pacl.inference.classifier import image_logits
from pacl.inference.vocabulary import Vocabulary
from pacl.modeling.pacl import Pacl
from pacl.runtime.prefetch import prefetch

ROWS = ("clip", "pacl", "fusion")
N_TO_CHOOSE_ON = 2000
"""Training pictures that the fusion's weight is chosen on, where there are more."""
_N_READERS = 4


@dataclass(frozen=True)
class ScoreRow:
    """One score's accuracy on one set; every rate in [0, 1]."""

    top1: float
    top5: float
    """nan where there are no more than five classes."""
    mean_per_class: float
    per_class: tuple[float, ...]
    """nan for a class without pictures."""


@dataclass(frozen=True)
class SetReport:
    """Zero-shot classification of one set by CLIP, by PACL and by both."""

    labels: tuple[str, ...]
    rows: dict[str, ScoreRow]
    """By score, one of ROWS."""
    fusion: FusionWeight
    n_images: int

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; nan becomes null, and per class the name is the key."""
        rows = {}
        for score, row in self.rows.items():
            names = dict(zip(self.labels, map(_no_nan, row.per_class), strict=True))
            rates = {name: _no_nan(value) for name, value in asdict(row).items()}
            rows[score] = rates | {"per_class": names}
        return {"n_images": self.n_images, "rows": rows, "fusion": asdict(self.fusion)}


@dataclass
class SetProgress:
    """Counts of a set that is being scored: enough to go on after an interrupt."""

    n_done: int
    fusion: FusionWeight
    counts: dict[str, ClassAccuracy]
    """By score, one of ROWS."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        counts = {score: accuracy.to_json() for score, accuracy in self.counts.items()}
        return {"n_done": self.n_done, "fusion": asdict(self.fusion), "counts": counts}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SetProgress:
        """Back from to_json.

        Raises:
            KeyError, TypeError, ValueError: These are no such values.
        """
        counts = {score: ClassAccuracy.from_json(values["counts"][score]) for score in ROWS}
        return cls(int(values["n_done"]), FusionWeight(**values["fusion"]), counts)


def evaluate_set(
    model: Model,
    data: ClassificationData,
    *,
    templates: Sequence[str],
    patch_stride_px: int | None = None,
    batch_size: int = 64,
    n_to_choose_on: int = N_TO_CHOOSE_ON,
    seed: int = 0,
    resume: SetProgress | None = None,
    on_progress: Callable[[SetProgress, int], None] | None = None,
    on_choosing: Callable[[int, int], None] | None = None,
) -> SetReport:
    """Classify the test pictures of a set with its class names.

    Args:
        model: Any CLIP, with an embedder or as a training-free baseline.
        data: Pictures and classes.
        templates: Prompts the class names are put in.
        patch_stride_px: Distance between the patches that PACL compares; None: the patch size.
        batch_size: Pictures encoded together.
        n_to_choose_on: Training pictures for the fusion's weight, as many of each class.
        seed: Of their draw.
        resume: Counts of a part that was scored before, with the same arguments.
        on_progress: Called after each batch with the counts so far and the pictures in all.
        on_choosing: Called with the training pictures done, and how many there are.

    Raises:
        InputError: A picture cannot be read: a score over some of them is of another set.
    """
    vocabulary = Model(model.pacl, templates=templates).vocabulary(data.labels)
    reader = _Reader(model.pacl, vocabulary, patch_stride_px, batch_size)
    progress = resume or SetProgress(
        n_done=0,
        fusion=_choose_fusion(
            reader, data.train, n_images=n_to_choose_on, seed=seed, on_progress=on_choosing
        ),
        counts={score: ClassAccuracy(len(data.labels)) for score in ROWS},
    )
    rows = range(progress.n_done, len(data.test))
    for of_pacl, of_clip, targets in reader.iter_logits(data.test, rows):
        fused = fuse_logits(of_pacl, of_clip, progress.fusion.clip_share)
        for score, logits in zip(ROWS, (of_clip, of_pacl, fused), strict=True):
            of_classes = max_over_names(logits, vocabulary.class_of_name, len(data.labels))
            progress.counts[score].update(of_classes, targets)
        progress.n_done += len(targets)
        if on_progress is not None:
            on_progress(progress, len(data.test))
    return SetReport(
        labels=data.labels.names,
        rows={score: _read_row(accuracy) for score, accuracy in progress.counts.items()},
        fusion=progress.fusion,
        n_images=progress.n_done,
    )


@dataclass(frozen=True, eq=False)
class _Reader:
    """Pictures to logits."""

    pacl: Pacl
    vocabulary: Vocabulary
    patch_stride_px: int | None
    batch_size: int

    def iter_logits(
        self, split: Split, rows: Sequence[int]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """PACL's logits, CLIP's and the classes of batches of pictures.

        While one batch is encoded, threads read the next.
        """

        def read(row: int) -> Tensor:
            return self.pacl.encoder.prepare(split.pictures.open(row))

        size = self.batch_size
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        for batch, images in prefetch(read, batches, workers=_N_READERS):
            yield *self._score(torch.stack(images)), torch.from_numpy(split.targets[list(batch)])

    @torch.inference_mode()
    def _score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        score = partial(
            image_logits,
            self.pacl,
            images,
            self.vocabulary.text_embeds,
            patch_stride_px=self.patch_stride_px,
        )
        return score(score="pacl"), score(score="clip")


def _choose_fusion(
    reader: _Reader,
    train: Split | None,
    *,
    n_images: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None,
) -> FusionWeight:
    if train is None or n_images == 0:
        return FusionWeight(EQUAL_SHARE, n_images=0, top1=None)
    rows = draw_evenly(train.targets, n_images, seed=seed).tolist()
    parts: list[tuple[Tensor, ...]] = []
    n_done = 0
    for part in reader.iter_logits(train, rows):
        parts.append(tuple(tensor.cpu() for tensor in part))
        n_done += len(part[2])
        if on_progress is not None:
            on_progress(n_done, len(rows))
    of_pacl, of_clip, targets = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return choose_clip_share(
        of_pacl, of_clip, targets, class_of_name=reader.vocabulary.class_of_name.cpu()
    )


def _read_row(accuracy: ClassAccuracy) -> ScoreRow:
    return ScoreRow(
        top1=accuracy.top1(),
        top5=accuracy.top5(),
        mean_per_class=accuracy.mean_per_class(),
        per_class=tuple(accuracy.per_class().tolist()),
    )


def _no_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
