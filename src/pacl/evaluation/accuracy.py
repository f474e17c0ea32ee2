"""A classification measurement: the words and the protocol around its counts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacl.api import Model
from pacl.datasets.classification import ClassificationSet
from pacl.errors import InputError
from pacl.evaluation.classification import N_TO_CHOOSE_ON, ClassificationScores
from pacl.evaluation.records import ScoreRecord, Subject, digest, drawn_only, file_stem
from pacl.inference.config import SegmentConfig
from pacl.inference.segmenter import check_config
from pacl.modeling.pacl import Pacl
from pacl.text.cleaning import cleaning_mark
from pacl.text.templates import TEMPLATES

PACL_ALONE = "PACL's score alone: the towers are no CLIP, which would score by itself and fused"


@dataclass(frozen=True, eq=False)
class ClassificationMeasurement:
    """A model on a classification data set, with the words for its record."""

    opened: ClassificationSet
    subject: Subject
    scores: ClassificationScores
    settings: dict[str, Any]
    """Everything that decides the numbers."""
    is_usual: bool
    """Whether templates and stride are the data set's and the model's own."""
    warnings: tuple[str, ...]

    @property
    def benchmark(self) -> str:
        """The data set's name, as in tables."""
        return self.opened.name

    @property
    def stem(self) -> str:
        """Data set and model, as a file's name; a hash where the settings are not the usual."""
        mark = "" if self.is_usual else digest(self.settings)[:6]
        return file_stem(self.benchmark, *self.subject.words(), mark)

    def describe(self) -> str:
        """How much there is to do, in a line."""
        n_words = sum(map(len, self.settings["prompts"]))
        n_prompts = len(self.settings["templates"]) * n_words
        words = f"{self.benchmark}: {n_prompts:,} prompts, {self.scores.n_images:,} images"
        return "\n".join([words, *(note for note in self.warnings if note == PACL_ALONE)])

    def record(self, output: Path) -> ScoreRecord:
        """The finished scores; nothing else is written."""
        benchmark = self.opened.benchmark
        content = self.scores.report().to_json()
        return ScoreRecord(
            task="classification",
            benchmark=self.benchmark,
            subject=self.subject,
            protocol=self.settings,
            rows=content["rows"],
            n_images=content["n_images"],
            key=self.scores.keys[0],
            root=str(self.opened.root),
            seconds=self.scores.seconds,
            warnings=self.warnings,
            details={
                "title": benchmark.title,
                "usual_metric": benchmark.usual_metric,
                "fusion": content["fusion"],
            },
            file=f"{self.stem}.json",
        )


def measure_classification(
    opened: ClassificationSet,
    model: Model,
    subject: Subject,
    *,
    templates: str | None = None,
    patch_stride_px: int | None = None,
    batch_size: int = 64,
) -> ClassificationMeasurement:
    """Put a model and a classification data set together; the words are encoded now.

    Args:
        opened: The data set.
        model: Any CLIP, with an embedder or as a training-free baseline; or any pair of towers
            with an embedder.
        subject: What the model is called.
        templates: A name in `pacl.text.templates.TEMPLATES`; None: the data set's own.
        patch_stride_px: Distance between the patches that PACL compares; None: the patch size.
        batch_size: Images encoded together.

    Raises:
        InputError: The templates are unknown, or the stride is wider than a patch.
    """
    patch_px = model.pacl.vision.patch_size_px
    check_config(SegmentConfig(patch_stride_px=patch_stride_px), patch_px=patch_px)
    if templates is not None and templates not in TEMPLATES:
        raise InputError(f"unknown templates {templates!r}", fix=f"use {', '.join(TEMPLATES)}")
    prompts = opened.benchmark.templates if templates is None else TEMPLATES[templates]
    data = opened.data
    settings: dict[str, Any] = {
        "n_images": len(data.test),
        "targets": hashlib.sha256(data.test.targets.tobytes()).hexdigest()[:16],
        "prompts": [list(words) for words in data.labels.prompts],
        "templates": list(prompts),
        "patch_stride_px": patch_stride_px or patch_px,
        "n_train": 0 if data.train is None else min(len(data.train), N_TO_CHOOSE_ON),
    }
    mark = cleaning_mark(word for words in (prompts, *data.labels.prompts) for word in words)
    settings["weights"] = model.fingerprint + mark
    former = settings | {"weights": _former_fingerprint(model.pacl) + mark}
    scores = ClassificationScores(
        model,
        data,
        templates=prompts,
        patch_stride_px=settings["patch_stride_px"],
        batch_size=batch_size,
        keys=(digest(settings), digest(former)),
    )
    warnings = (*opened.warnings, *drawn_only(model, is_drawn=opened.is_drawn))
    if not model.pacl.is_clip:
        warnings += (PACL_ALONE,)
    is_usual = templates is None and patch_stride_px is None
    return ClassificationMeasurement(opened, subject, scores, settings, is_usual, warnings)


def _former_fingerprint(pacl: Pacl) -> str:
    """What identified a model in the classification scores of pacl until 2026-11."""
    value = hashlib.sha256(pacl.vision.fingerprint.encode())
    value.update(f"{pacl.token_kind} {pacl.token_layer} {pacl.patch_temperature}".encode())
    for name, tensor in sorted(pacl.embedder.state_dict().items() if pacl.embedder else ()):
        value.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return value.hexdigest()[:16]
