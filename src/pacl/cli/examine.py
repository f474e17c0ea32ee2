"""pacl data check, doctor and models: what is here, and whether it can be used."""

from __future__ import annotations

import json as jsons
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from pacl.cli.exit_codes import CANNOT_RUN, DONE, SOME_FAILED, WRONG_INPUT
from pacl.cli.json_files import read_json_object
from pacl.cli.talk import progress, result, say, table
from pacl.errors import InputError


@dataclass(frozen=True)
class CheckData:
    """Say what training or evaluating would find in a benchmark, folder or caption table."""

    path: Positional[Path]
    """A benchmark's name (voc20, ade150, ..., imagenet, pets, ...) with --root; or a CSV, TSV or
    JSONL file; or a folder with captions.csv, or with images/ and masks/."""

    root: Path | None = None
    """Folder that the benchmark was unpacked in."""

    all_masks: bool = False
    """Read every mask of the benchmark, not 200 spread over it."""

    image_key: str | None = None
    """Column of the image paths; none: found by its name."""

    caption_key: str | None = None
    """Column of the captions; none: found by its name."""

    labels: str | None = None
    """Class names by mask id, where the folder has no classes.json: "sky,road" or a file."""


@dataclass(frozen=True)
class Doctor:
    """Look at this machine: what pacl needs, what is missing, and how to mend it."""

    json: bool = False
    """Print JSON in place of the table."""


@dataclass(frozen=True)
class ListModels:
    """List the models that --model accepts here: the embedded one and those in local runs."""

    runs: Path = Path("runs")
    """Folder that is searched for training runs."""

    json: bool = False
    """Print JSON in place of the table."""


def check_data(options: CheckData) -> int:
    """Check whatever is there: pairs, masks, or both; 1 where rows would be skipped."""
    from pacl.benchmarks import NAMES
    from pacl.data.pairs import TABLE_NAMES

    if str(options.path) in NAMES:
        return _check_standard(str(options.path), options)
    path = options.path
    if str(path) == "folder" and options.root is not None:
        path = options.root
    elif options.root is not None:
        from pacl.cli.classification_check import check_classification

        return check_classification(str(options.path), options.root)
    is_benchmark = (path / "masks").is_dir()
    is_pairs = path.is_file() or any((path / name).is_file() for name in TABLE_NAMES)
    if not is_benchmark and not is_pairs:
        raise InputError(
            f"no data in {path}" if path.is_dir() else f"no such file or folder: {path}",
            why=f"looked for: {', '.join(TABLE_NAMES)}, and for images/ with masks/",
            fix="add captions.csv with the columns file_name,caption, or masks/NAME.png",
        )
    n_skipped = _check_pairs(options) if is_pairs else 0
    if is_benchmark:
        _check_benchmark(path, options.labels)
    return SOME_FAILED if n_skipped else DONE


def _check_standard(name: str, options: CheckData) -> int:
    """Print what there is of a standard benchmark; 2 where it must not be evaluated."""
    from pacl.benchmarks.check import check_benchmark

    if options.root is None:
        raise InputError(f"{name} needs --root", fix=f"pacl data check {name} --root DIR")
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
    from pacl.data.pairs import read_pairs

    pairs = read_pairs(options.path, image_key=options.image_key, caption_key=options.caption_key)
    result(pairs.report.summary())
    per_image = [len(captions) for captions in pairs.captions]
    result(f"captions per image: {min(per_image)} to {max(per_image)}; one is drawn per epoch")
    flags = "".join(
        f" --{name}-key {shlex.quote(key)}"
        for name, key in (("image", options.image_key), ("caption", options.caption_key))
        if key is not None
    )
    say(f"next: pacl train --data {shlex.quote(str(options.path))}{flags} --output runs/mine")
    return pairs.report.n_skipped


def _check_benchmark(path: Path, labels: str | None) -> None:
    import numpy as np

    from pacl.benchmarks.check import check_benchmark
    from pacl.data.folder import FolderDataset

    check_benchmark("folder", path, labels=labels).require_usable()
    dataset = FolderDataset(path, labels=labels)
    n_pixels, n_images = np.zeros((2, len(dataset.labels)), dtype=np.int64)
    with progress("read masks") as show:
        for number, item in enumerate(dataset, start=1):
            mask = dataset.read_mask(item)
            counts = np.bincount(mask[mask != dataset.ignore_label], minlength=len(dataset.labels))
            n_pixels += counts
            n_images += counts > 0
            show(number, len(dataset), "")
    ignored = ", ".join(map(str, dataset.ignore_labels)) or "none"
    result(f"{len(dataset):,} images with masks; ignored ids: {ignored}")
    shares = n_pixels / max(1, n_pixels.sum())
    rows = [
        [f"{number} {name}", f"{images:,}", f"{share:.1%}"]
        for number, (name, images, share) in enumerate(
            zip(dataset.labels.names, n_images, shares, strict=True)
        )
    ]
    result(table(["class", "images", "pixels"], rows))
    say(f"next: pacl evaluate {shlex.quote(str(path))}")


def run_doctor(options: Doctor) -> int:
    """Print the facts; 3 where pacl cannot run."""
    from pacl.doctor import examine

    facts = examine()
    if options.json:
        result(jsons.dumps([asdict(fact) for fact in facts], indent=1))
    else:
        width = max(len(fact.name) for fact in facts)
        for fact in facts:
            result(f"{fact.status:<4}  {fact.name:<{width}}  {fact.value}")
            if fact.fix:
                result(f"      {'':<{width}}  fix: {fact.fix}")
    n_failed = sum(fact.status == "fail" for fact in facts)
    say(f"{n_failed} problems keep pacl from running" if n_failed else "pacl can run here")
    return CANNOT_RUN if n_failed else DONE


def list_models(options: ListModels) -> int:
    """Print every model found, with the word that --model takes."""
    from pacl.model import STORYBOOK, find_source

    rows = []
    try:
        embedded = Path(find_source(STORYBOOK))
        rows += [_describe_checkpoint(embedded, name=STORYBOOK)]
    except InputError as error:
        say(f"error: {error}")
    rows += [_describe_checkpoint(path, name=str(path)) for path in _iter_runs(options.runs)]
    rows = [row for row in rows if row is not None]
    if options.json:
        result(jsons.dumps(rows, indent=1))
    elif rows:
        result(table(list(rows[0]), [list(map(str, row.values())) for row in rows]))
    say("any CLIP's hub id or local directory in Hugging Face format is a model as well")
    if rows:
        say(f'next: pacl segment PHOTOS --labels "sky,road" --model {rows[-1]["model"]}')
    return DONE


def _iter_runs(root: Path) -> Iterator[Path]:
    """Directories of training runs: those with a checkpoint in last/."""
    yield from sorted(path.parent.parent for path in root.glob("**/last/config.json"))


def _describe_checkpoint(directory: Path, *, name: str) -> dict[str, Any] | None:
    """One row; none for a directory that holds something else."""
    last = directory / "last"
    config = read_json_object((last if last.is_dir() else directory) / "config.json")
    if config.get("format") == "pacl":
        kind, encoder = "PACL embedder", config.get("encoder", "?")
    elif config.get("model_type") == "clip":
        has_embedder = (directory / "pacl" / "config.json").is_file()
        kind, encoder = "CLIP with PACL embedder" if has_embedder else "CLIP", "-"
    else:
        return None
    steps = read_json_object(last / "trainer.json").get("step", "-")
    return {"model": name, "kind": kind, "of": encoder, "steps": steps}
