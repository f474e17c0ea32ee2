"""Open what is scored pixel by pixel: a benchmark, a folder of one's own, or drawn scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pacl.datasets.segmentation import NAMES
from pacl.datasets.segmentation.check import BenchmarkReport, check_benchmark
from pacl.datasets.segmentation.dataset import BenchmarkDataset
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.errors import InputError

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


def open_segmentation(
    name: str,
    *,
    root: Path | None = None,
    labels: str | None = None,
    on_drawing: Callable[[int, int], None] | None = None,
) -> SegmentationSet:
    """Open a data set by what a user calls it, and check it.

    Args:
        name: A benchmark; "storybook", which is drawn where it is not there yet; "folder", which
            is `root`; or the path of a folder of images/ and masks/.
        root: The folder that the benchmarks were unpacked in.
        labels: Class names by mask id, in place of a folder's.
        on_drawing: Called with the scenes drawn and the scenes to draw.

    Raises:
        InputError: It is not there, incomplete, or was converted wrongly.
    """
    if name == STORYBOOK:
        return SegmentationSet(name, _draw_storybook(labels, on_drawing))
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


def open_all(root: Path) -> tuple[list[SegmentationSet], dict[str, InputError], list[str]]:
    """Open every benchmark that lies under a root.

    Returns:
        The usable ones, why others must not be scored, and the names that are not there.
    """
    usable: list[SegmentationSet] = []
    refused: dict[str, InputError] = {}
    missing: list[str] = []
    for name in NAMES:
        report = check_benchmark(name, root)
        if report.is_usable:
            usable.append(_usable(report))
        elif report.is_there:
            refused[name] = report.problems[0].error()
        else:
            missing.append(name)
    return usable, refused, missing


def needs_root(name: str) -> InputError:
    """The error where a set is named without the folder that holds it."""
    return InputError(
        f"{name} needs --root", fix="add --root DIR, the folder that the data sets were unpacked in"
    )


def _usable(report: BenchmarkReport) -> SegmentationSet:
    dataset = report.require_usable()
    name = report.name
    if name == FOLDER:
        name = dataset.root.resolve().name
        name = f"folder {name}" if name in (*NAMES, STORYBOOK) else name
    return SegmentationSet(name, dataset, report.warnings, report.n_expected)


def _draw_storybook(
    labels: str | Sequence[str] | None, on_drawing: Callable[[int, int], None] | None
) -> FolderDataset:
    from pacl.datasets.storybook import draw_storybook

    folders = draw_storybook(STORYBOOK_DIR, counts={"test": N_SCENES}, on_progress=on_drawing)
    return FolderDataset(folders["test"], labels=labels)
