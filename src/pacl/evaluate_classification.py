"""Scoring zero-shot classification: accuracy on images with one true class each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pacl.api import LabelsLike, Model
from pacl.classifier import class_probabilities
from pacl.data.images import open_image
from pacl.errors import InputError


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
