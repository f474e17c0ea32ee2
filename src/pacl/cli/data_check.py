"""pacl data check: what is here, and whether it can be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from pacl.cli.console import DONE, SOME_FAILED, WRONG_INPUT, progress, result, say, say_next, table
from pacl.errors import InputError, PaclError

if TYPE_CHECKING:
    from pacl.datasets.classification import ClassificationSet
    from pacl.datasets.segmentation.check import BenchmarkReport


@dataclass(frozen=True)
class CheckData:
    """Report what training or evaluation would find in a benchmark, folder or caption table."""

    path: Positional[Path]
    """A benchmark's name (voc20, ade150, ..., imagenet, pets, ...) with --root; or a CSV, TSV or
    JSONL file; or a folder with captions.csv, or with images/ and masks/."""

    root: Path | None = None
    """Folder with the unpacked benchmark."""

    all_masks: bool = False
    """Read every mask of the benchmark instead of 200 spread over it."""

    image_key: str | None = None
    """Column of the image paths; none: detected by name."""

    caption_key: str | None = None
    """Column of the captions; none: detected by name."""

    recaptions: Path | None = None
    """Table of captions for tars, joined by key; see `pacl train -h`."""

    labels: str | None = None
    """Class names by mask id, where the folder has no classes.json: "sky,road" or a file."""


def check_data(options: CheckData) -> int:
    """Check the pairs, the masks, or both; 1 if rows would be skipped."""
    from pacl.data.layouts import TABLE_NAMES
    from pacl.datasets.segmentation import NAMES

    name, path = str(options.path), options.path
    if name in NAMES:
        return _check_standard(name, options)
    if name == "folder" and options.root is not None:
        path = options.root
    elif options.root is not None:
        return _check_classification(name, options.root)
    is_benchmark = (path / "masks").is_dir()
    is_pairs = not is_benchmark or any((path / name).is_file() for name in TABLE_NAMES)
    n_skipped = _check_pairs(options) if is_pairs else 0
    if is_benchmark:
        _check_folder(path, options.labels)
    return SOME_FAILED if n_skipped else DONE


def _check_standard(name: str, options: CheckData) -> int:
    from pacl.datasets.segmentation import needs_root
    from pacl.datasets.segmentation.check import N_MASKS, check_benchmark

    if options.root is None:
        raise needs_root(name)
    n_masks = None if options.all_masks else N_MASKS
    report = check_benchmark(name, options.root, n_masks=n_masks)
    remarks = [f"id {raw} is no class: {n:,} pixels" for raw, n in report.strange_ids.items()]
    problems = [problem.error() for problem in report.problems]
    return _tell(report, problems, name, root=options.root, remarks=remarks)


def _check_folder(path: Path, labels: str | None) -> None:
    from pacl.datasets.segmentation.check import check_benchmark

    with progress("read masks") as show:
        report = check_benchmark("folder", path, labels=labels, n_masks=None, on_progress=show)
    report.require_usable()
    _tell(report, [], str(path))


def _check_classification(name: str, root: Path) -> int:
    from pacl.datasets.classification import CLASSIFICATION_NAMES, open_classification
    from pacl.datasets.segmentation import NAMES

    if name not in CLASSIFICATION_NAMES:
        raise InputError(
            f"no benchmark called {name!r}",
            why="--root goes with the name of one",
            fix=f"choose one of: {', '.join((*NAMES, *CLASSIFICATION_NAMES))}",
        )
    opened = open_classification(name, root=root)
    error = opened.data.test.find_unreadable()
    return _tell(opened, [] if error is None else [error], name, root=root)


def _tell(
    found: BenchmarkReport | ClassificationSet,
    problems: Sequence[PaclError],
    name: str,
    root: Path | None = None,
    remarks: Sequence[str] = (),
) -> int:
    """Print what was found of a data set; 2 if it must not be evaluated."""
    result(found.describe())
    header, rows = found.class_table()
    if rows:
        result(table(header, rows))
    say(*remarks, *(f"warning: {warning}" for warning in found.warnings))
    say(*(f"error: {problem}" for problem in problems))
    if problems:
        return WRONG_INPUT
    say_next("evaluate", name, root=root)
    return DONE


def _check_pairs(options: CheckData) -> int:
    """Print what training would find, and return how many rows it would skip."""
    from pacl.data.checking import check_pairs
    from pacl.data.opening import open_pairs
    from pacl.data.recaptions import Recaptions

    pairs = open_pairs(
        options.path,
        image_key=options.image_key,
        caption_key=options.caption_key,
        recaptions=Recaptions(options.recaptions) if options.recaptions else None,
    )
    result(pairs.summary())
    with progress("read pairs") as show:
        checked = check_pairs(pairs, on_progress=show)
    result(*checked.lines())
    say_next(
        "train",
        data=options.path,
        image_key=options.image_key,
        caption_key=options.caption_key,
        recaptions=options.recaptions,
        output="runs/mine",
    )
    return pairs.n_skipped + checked.n_broken
