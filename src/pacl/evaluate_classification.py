"""Scoring zero-shot classification: accuracy on pictures with one true class each.

Three rows from one pass over the pictures: CLIP's own cosine, PACL's compatibility, and their
weighted mean, whose weight is chosen on training pictures or fixed at one half, never on the test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pacl.accuracy import ClassAccuracy
from pacl.api import LabelsLike, Model
from pacl.benchmarks.classification.dataset import ClassificationData, Split
from pacl.classifier import class_probabilities, image_logits
from pacl.data.images import open_image
from pacl.errors import InputError
from pacl.fusion import (
    EQUAL_SHARE,
    FusionWeight,
    choose_clip_share,
    draw_evenly,
    fuse_logits,
    max_over_names,
)
from pacl.model import Pacl
from pacl.vocabulary import Vocabulary

ROWS = ("clip", "pacl", "fusion")
N_TO_CHOOSE_ON = 2000
"""Training pictures that the fusion's weight is chosen on, where there are more."""
_N_READERS = 4


@dataclass(frozen=True)
class ClassificationReport:
    """Zero-shot classification of one data set."""

    labels: tuple[str, ...]
    score: str
    top1: float
    """Share of the images whose most probable label is the true one, in [0, 1]."""
    n_images: int

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def evaluate_classification(
    model: Model,
    image_paths: Sequence[Path],
    labels: LabelsLike,
    targets: Sequence[str],
    *,
    score: str,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
) -> ClassificationReport:
    """Top-1 accuracy of zero-shot classification.

    Args:
        model: Any CLIP, with an embedder or as a training-free baseline.
        image_paths: The images.
        labels: The candidate classes.
        targets: The true class of each image, one of the candidates' names.
        score: "pacl" (φ̂), "clip" (CLIP's pooled embedding) or "fusion".
        batch_size: Images encoded together.
        on_progress: Called with the images done and the images in all.

    Raises:
        InputError: There are no images, a target is no candidate, or an image cannot be read.
    """
    vocabulary = model.vocabulary(labels)
    unknown = sorted(set(targets) - set(vocabulary.labels))
    if unknown or not image_paths:
        raise InputError(
            f"targets that are no candidate: {', '.join(unknown)}" if unknown else "no images"
        )
    truth = torch.tensor([vocabulary.labels.index(target) for target in targets])
    n_right = 0
    for start in range(0, len(image_paths), batch_size):
        rows = range(start, min(start + batch_size, len(image_paths)))
        images = [model.pacl.encoder.preprocess(open_image(image_paths[row])) for row in rows]
        probabilities = class_probabilities(
            model.pacl, torch.stack(images), vocabulary, score=score
        )
        n_right += int((probabilities.argmax(dim=1).cpu() == truth[list(rows)]).sum())
        if on_progress is not None:
            on_progress(rows[-1] + 1, len(image_paths))
    return ClassificationReport(
        labels=vocabulary.labels,
        score=score,
        top1=n_right / len(image_paths),
        n_images=len(image_paths),
    )


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
    progress = resume or SetProgress(
        n_done=0,
        fusion=_choose_fusion(
            model.pacl,
            data.train,
            vocabulary,
            n_images=n_to_choose_on,
            seed=seed,
            batch_size=batch_size,
            on_progress=on_choosing,
        ),
        counts={score: ClassAccuracy(len(data.labels)) for score in ROWS},
    )
    rows = range(progress.n_done, len(data.test))
    for of_pacl, of_clip, targets in _iter_logits(
        model.pacl, data.test, rows, vocabulary, batch_size
    ):
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


def _choose_fusion(
    pacl: Pacl,
    train: Split | None,
    vocabulary: Vocabulary,
    *,
    n_images: int,
    seed: int,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None,
) -> FusionWeight:
    if train is None or n_images == 0:
        return FusionWeight(EQUAL_SHARE, n_images=0, top1=None)
    rows = draw_evenly(train.targets, n_images, seed=seed).tolist()
    parts: list[tuple[Tensor, ...]] = []
    n_done = 0
    for part in _iter_logits(pacl, train, rows, vocabulary, batch_size):
        parts.append(tuple(tensor.cpu() for tensor in part))
        n_done += len(part[2])
        if on_progress is not None:
            on_progress(n_done, len(rows))
    of_pacl, of_clip, targets = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return choose_clip_share(
        of_pacl, of_clip, targets, class_of_name=vocabulary.class_of_name.cpu()
    )


@torch.inference_mode()
def _logits(pacl: Pacl, images: Tensor, text_embeds: Tensor) -> tuple[Tensor, Tensor]:
    """PACL's and CLIP's logits of every picture with every name."""
    of_pacl = image_logits(pacl, images, text_embeds, score="pacl")
    return of_pacl, image_logits(pacl, images, text_embeds, score="clip")


def _iter_logits(
    pacl: Pacl, split: Split, rows: Sequence[int], vocabulary: Vocabulary, batch_size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """PACL's logits, CLIP's and the classes of batches of pictures.

    While one batch is encoded, threads read the next.
    """

    def read(row: int) -> Tensor:
        return pacl.encoder.preprocess(split.pictures.open(row))

    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    with ThreadPoolExecutor(_N_READERS) as readers:
        ahead = [readers.submit(read, row) for row in batches[0]] if batches else []
        for number, batch in enumerate(batches):
            images = torch.stack([future.result() for future in ahead])
            following = batches[number + 1] if number + 1 < len(batches) else ()
            ahead = [readers.submit(read, row) for row in following]
            of_pacl, of_clip = _logits(pacl, images, vocabulary.text_embeds)
            yield of_pacl, of_clip, torch.from_numpy(split.targets[list(batch)])


def _read_row(accuracy: ClassAccuracy) -> ScoreRow:
    return ScoreRow(
        top1=accuracy.top1(),
        top5=accuracy.top5(),
        mean_per_class=accuracy.mean_per_class(),
        per_class=tuple(accuracy.per_class().tolist()),
    )


def _no_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
