"""What `pacl evaluate` is asked for: which data sets, under which settings, of which task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pacl.api import Model
from pacl.datasets.classification import (
    CLASSIFICATION_NAMES,
    ClassificationSet,
    open_classification,
)
from pacl.datasets.segmentation import NAMES
from pacl.datasets.segmentation.open import (
    STORYBOOK,
    SegmentationSet,
    needs_root,
    open_all,
    open_segmentation,
)
from pacl.errors import InputError
from pacl.evaluation.accuracy import measure_classification
from pacl.evaluation.records import Subject
from pacl.evaluation.retrieval import (
    TABLE_SUFFIXES,
    RetrievalSet,
    measure_retrieval,
    open_retrieval,
)
from pacl.evaluation.run import Measurement, Note, Progress
from pacl.evaluation.segmentation import measure_segmentation
from pacl.evaluation.task import changed_flags
from pacl.inference.config import SegmentConfig
from pacl.modeling.pacl import Pacl

DataSet = SegmentationSet | ClassificationSet | RetrievalSet


@dataclass(frozen=True)
class Settings:
    """How models are scored."""

    preset: str | None = None
    """A segmentation protocol by name, which decides all of `segmenting` but the batch size."""
    segmenting: SegmentConfig = field(default_factory=SegmentConfig)
    use_pamr: bool = False
    """Whether segmentation gets a second row with PAMR, also where the preset has none."""
    use_profile: bool = False
    """Whether the time of a segmentation's stages is measured; it is scored again for that."""
    baseline: str | None = None
    labels: str | None = None
    """Class names by mask id, in place of a folder's."""
    templates: str | None = None
    """Prompts of a classification's class names; None: each data set's own."""


def open_sets(
    names: Sequence[str],
    *,
    root: Path | None,
    settings: Settings,
    note: Note,
    progress: Progress,
    every: bool = False,
) -> tuple[list[DataSet], int]:
    """Open and check data sets; nothing is scored before all are usable.

    Args:
        names: What the user calls them: segmentation or classification data sets, not both.
        root: The folder that they were unpacked in.
        settings: Must be of the data sets' task.
        note: Told what makes a score one of other data, and what is skipped.
        progress: Shows the drawing of scenes.
        every: Open every segmentation benchmark below the root instead.

    Returns:
        The data sets, and how many of `every` are there but must not be scored.

    Raises:
        InputError: One is not there, or was converted wrongly, or settings are of another task.
    """
    if every == bool(names):
        raise InputError(
            "--all and names of benchmarks exclude each other" if every else "no benchmark named",
            fix="pacl evaluate voc20 --root DIR, or pacl evaluate --all --root DIR",
        )
    names = list(dict.fromkeys(names))
    classified = pick_classification(names, root)
    tables = [name for name in names if name.endswith(TABLE_SUFFIXES)]
    _check_settings(settings, classified, tables)
    if every:
        return _open_all(root, note)
    if tables and len(tables) < len(names):
        raise InputError(f"{tables[0]} is a table of captions", fix="evaluate it by itself")
    if tables:
        opened: list[DataSet] = [open_retrieval(name) for name in tables]
    elif classified:
        opened = [open_classification(name, root=root) for name in classified]
    else:
        opened = [open_one(name, root=root, labels=settings.labels, progress=progress)
                  for name in names]  # fmt: skip
    for each in opened:
        for warning in each.warnings:
            note(f"warning: {warning}")
    return opened, 0


def open_one(
    name: str, *, root: Path | None, labels: str | None, progress: Progress
) -> SegmentationSet:
    """Open a segmentation data set, with a bar where scenes have to be drawn."""
    if name != STORYBOOK:
        return open_segmentation(name, root=root, labels=labels)
    with progress("draw storybook") as show:
        return open_segmentation(
            name, labels=labels, on_drawing=lambda done, total: show(done, total, "")
        )


def pick_classification(names: Sequence[str], root: Path | None) -> list[str]:
    """The names, where they are of classification data sets; none, where they are of others.

    A folder of images and masks that is called like a set is a folder, unless there is a root.

    Raises:
        InputError: They are of both.
    """
    picked = [
        name
        for name in names
        if name in CLASSIFICATION_NAMES and not (root is None and (Path(name) / "masks").is_dir())
    ]
    others = [name for name in names if name not in picked]
    if picked and others:
        raise InputError(
            f"{picked[0]} is a classification data set, {others[0]} a segmentation one",
            fix="evaluate them by two commands",
        )
    return picked


def _open_all(root: Path | None, note: Note) -> tuple[list[DataSet], int]:
    if root is None:
        raise needs_root("--all")
    usable, refused, missing = open_all(root)
    for name, error in refused.items():
        note(f"{name} is refused: {error}")
    if missing:
        note(f"not under {root}, skipped: {', '.join(missing)}")
    if not usable:
        raise InputError(
            f"no benchmark under {root} can be evaluated",
            why=f"looked for: {', '.join(NAMES)}",
            fix=f"pacl data check {NAMES[0]} --root {root}",
        )
    for each in usable:
        for warning in each.warnings:
            note(f"warning: {warning}")
    return [*usable], len(refused)


def _check_settings(settings: Settings, classified: Sequence[str], tables: Sequence[str]) -> None:
    """Refuse settings that would do nothing."""
    given = changed_flags(settings.segmenting)
    if classified or tables:
        flags = {"--preset": settings.preset, "--pamr": settings.use_pamr,
                 "--labels": settings.labels, "--profile": settings.use_profile,
                 "--baseline": settings.baseline and not tables,
                 "--templates": settings.templates and tables}  # fmt: skip
        idle = [flag for flag, value in flags.items() if value]
        idle += [flag for flag in given if tables or flag != "--patch-stride-px"]
        if idle:
            kind = "table of captions" if tables else "classification data set"
            raise InputError(
                f"{[*tables, *classified][0]} is a {kind}: {', '.join(idle)} would do nothing",
                fix="leave it out",
            )
    elif settings.templates is not None:
        raise InputError(
            "--templates is for classification data sets",
            fix="leave it out; --preset decides the templates, or the model's own are taken",
        )
    elif settings.preset is not None and given:
        raise InputError(
            f"the preset {settings.preset} decides {', '.join(given)}",
            fix="leave them out; or leave out --preset to use settings of your own",
        )


def as_baseline(model: Model, token_kind: str, *, engine: str) -> Model:
    """The training-free method with these patch tokens, on a model's frozen CLIP."""
    baseline = Model(Pacl(encoder=model.pacl.encoder, embedder=None, token_kind=token_kind))
    baseline.pacl.use_engine(engine)
    return baseline


def build_measurement(
    opened: DataSet, model: Model, subject: Subject, settings: Settings
) -> Measurement:
    """Put together a data set, a model and a protocol; the words are encoded now.

    Raises:
        InputError: The protocol does not exist, or does not fit the encoder's patches.
    """
    if isinstance(opened, ClassificationSet):
        return measure_classification(
            opened,
            model,
            subject,
            templates=settings.templates,
            patch_stride_px=settings.segmenting.patch_stride_px,
            batch_size=settings.segmenting.batch_size,
        )
    if isinstance(opened, RetrievalSet):
        return measure_retrieval(opened, model, subject, batch_size=settings.segmenting.batch_size)
    return measure_segmentation(
        opened,
        model,
        subject,
        preset=settings.preset,
        config=settings.segmenting,
        use_pamr=settings.use_pamr,
        use_profile=settings.use_profile,
    )
