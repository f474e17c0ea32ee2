"""pacl data check, doctor and models: what is here, and whether it can be used."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from pacl.cli.console import (
    DONE,
    SOME_FAILED,
    WRONG_INPUT,
    progress,
    result,
    say,
    table,
)
from pacl.errors import InputError


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
        _check_benchmark(path, options.labels)
    return SOME_FAILED if n_skipped else DONE


def _check_standard(name: str, options: CheckData) -> int:
    """Print the state of a standard benchmark; 2 if it must not be evaluated."""
    from pacl.datasets.segmentation import needs_root
    from pacl.datasets.segmentation.check import check_benchmark

    if options.root is None:
        raise needs_root(name)
    n_masks = {"n_masks": None} if options.all_masks else {}
    report = check_benchmark(name, options.root, **n_masks)
    expected = " or ".join(f"{n:,}" for n in report.n_expected)
    result(f"{name}: {report.n_found:,} images with masks, {expected} expected")
    n_pixels = max(1, sum(report.histogram.values()))
    rows = [[label, f"{n / n_pixels:.2%}"] for label, n in report.histogram.items()]
    if rows:
        result(table([f"class, in {report.n_masks_read:,} masks", "pixels"], rows))
    for raw, n in report.strange_ids.items():
        say(f"id {raw} is no class: {n:,} pixels")
    for warning in report.warnings:
        say(f"warning: {warning}")
    for problem in report.problems:
        say(f"error: {problem.error()}")
    if not report.is_usable:
        return WRONG_INPUT
    say(f"next: pacl evaluate {name} --root {shlex.quote(str(options.root))}")
    return DONE


def _check_pairs(options: CheckData) -> int:
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
        checked = check_pairs(pairs, on_progress=lambda done, n: show(done, n, ""))
    for line in checked.lines():
        result(line)
    flags = "".join(
        f" --{name}-key {shlex.quote(key)}"
        for name, key in (("image", options.image_key), ("caption", options.caption_key))
        if key is not None
    )
    if options.recaptions is not None:
        flags += f" --recaptions {shlex.quote(str(options.recaptions))}"
    say(f"next: pacl train --data {shlex.quote(str(options.path))}{flags} --output runs/mine")
    return pairs.n_skipped + checked.n_broken


def _check_benchmark(path: Path, labels: str | None) -> None:
    from pacl.datasets.segmentation.check import check_benchmark

    with progress("read masks") as show:
        report = check_benchmark(
            "folder",
            path,
            labels=labels,
            n_masks=None,
            on_progress=lambda done, total: show(done, total, ""),
        )
    dataset = report.require_usable()
    ignored = ", ".join(map(str, dataset.ignore_labels)) or "none"
    result(f"{len(dataset):,} images with masks; ignored ids: {ignored}")
    pixels = [report.histogram[name] for name in dataset.labels.names]
    n_pixels = max(1, sum(pixels))
    rows = [
        [f"{number} {name}", f"{report.n_images[name]:,}", f"{n / n_pixels:.1%}"]
        for number, (name, n) in enumerate(zip(dataset.labels.names, pixels, strict=True))
    ]
    result(table(["class", "images", "pixels"], rows))
    say(f"next: pacl evaluate {shlex.quote(str(path))}")


def _check_classification(name: str, root: Path) -> int:
    """Print the state of a classification data set; 2 if an image cannot be read."""
    from pacl.datasets.classification import CLASSIFICATION_NAMES, open_classification
    from pacl.datasets.segmentation import NAMES

    if name not in CLASSIFICATION_NAMES:
        raise InputError(
            f"no benchmark called {name!r}",
            why="--root goes with the name of one",
            fix=f"choose one of: {', '.join((*NAMES, *CLASSIFICATION_NAMES))}",
        )
    opened = open_classification(name, root=root)
    benchmark, data = opened.benchmark, opened.data
    expected = "" if benchmark.n_images is None else f", {benchmark.n_images:,} expected"
    result(f"{name}: {len(data.test):,} images of {benchmark.title}{expected}")
    counts = [split.n_per_class(len(data.labels)) for split in (data.test, data.train) if split]
    rows = [
        [label, *(f"{n:,}" for n in of_splits)]
        for label, *of_splits in zip(data.labels.names, *counts, strict=True)
    ]
    result(table(["class", "test", "train"][: 1 + len(counts)], rows))
    for warning in opened.warnings:
        say(f"warning: {warning}")
    if (error := data.test.find_unreadable()) is not None:
        say(f"error: {error}")
        return WRONG_INPUT
    say(f"next: pacl evaluate {name} --root {shlex.quote(str(root))}")
    return DONE
