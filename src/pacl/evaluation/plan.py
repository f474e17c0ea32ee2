"""What `pacl evaluate` is asked for: data sets, opened and checked, and settings of their task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from pacl.api import AUTO
from pacl.data.tables import TABLE_SUFFIXES
from pacl.datasets.classification import (
    CLASSIFICATION_NAMES,
    ClassificationSet,
    open_classification,
)
from pacl.datasets.segmentation import NAMES, needs_root
from pacl.datasets.segmentation.check import BenchmarkReport, check_benchmark
from pacl.datasets.segmentation.dataset import BenchmarkDataset
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.errors import InputError
from pacl.evaluation.retrieval import (
    RetrievalSet,
    open_retrieval,
)
from pacl.evaluation.task import changed_flags
from pacl.inference.config import SegmentConfig

Note = Callable[[str], None]
"""Told what a user should know."""
ShowProgress = Callable[[int, int, str], None]
"""Told the images done, the images in all and a few words."""
Progress = Callable[[str], AbstractContextManager[ShowProgress]]
"""Opens a progress bar of a certain title."""

STORYBOOK, FOLDER = "storybook", "folder"
STORYBOOK_DIR = Path("runs/storybook")
N_SCENES = 300


@dataclass(frozen=True, eq=False)
class SegmentationSet:
    """A data set that is there, complete and checked."""

    name: str
    """A benchmark's; a folder's own, marked where a benchmark is called so."""
    dataset: FolderDataset | BenchmarkDataset
    warnings: tuple[str, ...] = ()
    """What makes a score one of another set of images."""
    n_expected: tuple[int, ...] = ()
    """Images of the official split; several numbers where lists differ, none for a folder."""

    @property
    def root(self) -> Path:
        """The folder that holds it."""
        return self.dataset.root

    @property
    def is_drawn(self) -> bool:
        """Whether its images are Storybook's."""
        return (self.root / "storybook.json").is_file()


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
    """Training-free patch tokens to score in place of an embedder."""
    proxy: str | None = None
    """The second vision tower of the baseline "proxyclip", by hub id or directory."""
    labels: str | None = None
    """Class names by mask id, in place of a folder's."""
    templates: str | None = None
    """Prompts of a classification's class names; None: each data set's own."""
    words: tuple[str, ...] | None = None
    """What a model chooses from where labels is "auto"; None: its own words."""

    def __post_init__(self) -> None:
        if (self.baseline == "proxyclip") != (self.proxy is not None):
            raise InputError(
                "--baseline proxyclip and --proxy-tower belong together",
                why="ProxyCLIP mixes CLIP's values as the patches of a second vision tower are "
                "alike",
                fix="--baseline proxyclip --proxy-tower facebook/dino-vitb8, or neither",
            )

    @property
    def is_open(self) -> bool:
        """Whether the model chooses the words itself, image by image."""
        return self.labels == AUTO


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
    tables = [name for name in names if name.lower().endswith(TABLE_SUFFIXES)]
    _check_settings(settings, classified, tables)
    if tables and len(tables) < len(names):
        raise InputError(f"{tables[0]} is a table of captions", fix="evaluate it by itself")
    opened: list[DataSet]
    n_refused = 0
    if every:
        opened, n_refused = _open_all(root, note)
    elif tables:
        opened = [open_retrieval(name) for name in tables]
    elif classified:
        opened = [open_classification(name, root=root) for name in classified]
    else:
        labels = None if settings.is_open else settings.labels
        opened = [open_segmentation(name, root=root, labels=labels, progress=progress)
                  for name in names]  # fmt: skip
    for each in opened:
        for warning in each.warnings:
            note(f"warning: {warning}")
    return opened, n_refused


def open_segmentation(
    name: str, *, root: Path | None, labels: str | None, progress: Progress
) -> SegmentationSet:
    """Open a data set by what a user calls it, and check it.

    Args:
        name: A benchmark; "storybook", which is drawn where it is not there yet; "folder", which
            is `root`; or the path of a folder of images/ and masks/.
        root: The folder that the benchmarks were unpacked in.
        labels: Class names by mask id, in place of a folder's.
        progress: Shows the drawing of scenes.

    Raises:
        InputError: It is not there, incomplete, or was converted wrongly.
    """
    if name == STORYBOOK:
        return SegmentationSet(name, _draw_storybook(labels, progress))
    is_benchmark = name in NAMES
    if is_benchmark and labels is not None:
        raise InputError(
            f"--labels: {name} has class names of its own",
            fix="leave --labels out, or use a folder",
        )
    if root is None and (is_benchmark or name == FOLDER):
        raise needs_root(name)
    if not is_benchmark:
        folder = Path(name) if root is None or name != FOLDER else root
        return _usable(check_benchmark(FOLDER, folder, labels=labels))
    return _usable(check_benchmark(name, root or "."))


def _usable(report: BenchmarkReport) -> SegmentationSet:
    dataset = report.require_usable()
    name = report.name
    if name == FOLDER:
        name = dataset.root.resolve().name
        name = f"folder {name}" if name in (*NAMES, STORYBOOK) else name
    return SegmentationSet(name, dataset, report.warnings, report.n_expected)


def _draw_storybook(labels: str | None, progress: Progress) -> FolderDataset:
    from pacl.datasets.storybook import draw_storybook

    with progress("draw storybook") as show:
        folders = draw_storybook(
            STORYBOOK_DIR,
            counts={"test": N_SCENES},
            on_progress=lambda done, total: show(done, total, ""),
        )
    return FolderDataset(folders["test"], labels=labels)


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
    """Open every usable benchmark under a root; counts those that are there and refused."""
    if root is None:
        raise needs_root("--all")
    usable: list[DataSet] = []
    missing: list[str] = []
    n_refused = 0
    for name in NAMES:
        report = check_benchmark(name, root)
        if report.is_usable:
            usable.append(_usable(report))
        elif report.is_there:
            n_refused += 1
            note(f"{name} is refused: {report.problems[0].error()}")
        else:
            missing.append(name)
    if missing:
        note(f"not under {root}, skipped: {', '.join(missing)}")
    if not usable:
        raise InputError(
            f"no benchmark under {root} can be evaluated",
            why=f"looked for: {', '.join(NAMES)}",
            fix=f"pacl data check {NAMES[0]} --root {root}",
        )
    return usable, n_refused


def _check_settings(settings: Settings, classified: Sequence[str], tables: Sequence[str]) -> None:
    """Refuse settings that would do nothing."""
    given = changed_flags(settings.segmenting)
    if "--stability" in given:
        raise InputError("--stability is for the frames of videos", fix="leave it out")
    if classified or tables:
        flags = {"--preset": settings.preset, "--pamr": settings.use_pamr,
                 "--labels": settings.labels, "--profile": settings.use_profile,
                 "--words": settings.words,
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
    elif settings.words is not None and not settings.is_open:
        raise InputError("--words is for --labels auto", fix="leave it out")
    elif settings.is_open and (settings.preset or settings.use_pamr or settings.use_profile):
        raise InputError("--labels auto has no preset, PAMR or profile", fix="leave them out")
    elif settings.is_open and any(flag.startswith("--background") for flag in given):
        raise InputError("--labels auto has no background rule here", fix="leave it out")
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
