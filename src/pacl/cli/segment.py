"""pacl segment: many pictures into a folder, skipping what is done and going on after errors."""

from __future__ import annotations

import json as jsons
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacl.cli.console import DONE, SOME_FAILED, progress, result, say
from pacl.cli.options import ModelOptions, Sources, warn_of_photographs
from pacl.errors import InputError
from pacl.inference.config import SegmentConfig

if TYPE_CHECKING:
    from pacl.api import Model
    from pacl.results import Segmentation
    from pacl.results.folder import OutputFolder
    from pacl.text.labels import Labels

N_SHOWN = 4


@dataclass(frozen=True)
class Segment:
    """Label every pixel of pictures with the words you give."""

    sources: Sources
    """Pictures: files, folders, or patterns in quotes such as "photos/**/*.jpg"."""

    labels: str
    """The classes: "sky,road,car", or a .txt or .json file; {"car": ["car", "van"]} in a .json
    file gives a class several names."""

    output: Path = Path("runs/segment")
    """Folder for the results; its pictures.jsonl says which files belong to which picture."""

    formats: str = "png,overlay,json"
    """What is written for each picture: png (label map), overlay, json (areas), npz (arrays)."""

    overwrite: bool = False
    """Segment again what is done already."""

    json: bool = False
    """Print one JSON object per picture."""

    loading: ModelOptions = field(default_factory=ModelOptions)

    segmenting: SegmentConfig = field(default_factory=SegmentConfig)


def run_segment(options: Segment) -> int:
    """Segment what is not done yet; 1 where some pictures failed."""
    from pacl.data.sources import find_images
    from pacl.results.folder import OutputFolder
    from pacl.text.labels import parse_labels

    labels, config = parse_labels(options.labels), options.segmenting
    formats = _parse_formats(options.formats)
    if not options.sources:
        raise InputError("no pictures named", fix='pacl segment photos/ --labels "sky,road,car"')
    paths = find_images(options.sources)
    model = options.loading.load()
    warn_of_photographs(model)
    folder = OutputFolder(options.output, formats)
    folder.claim(_settings(model, labels, config), may_replace=options.overwrite)
    todo = [path for path in paths if options.overwrite or not folder.has(path)]
    if len(todo) < len(paths):
        say(f"{len(paths) - len(todo):,} of {len(paths):,} pictures are done already: skipped")
    return _segment_all(model, todo, labels, config, folder, is_json=options.json)


def _segment_all(
    model: Model,
    paths: list[Path],
    labels: Labels,
    config: SegmentConfig,
    folder: OutputFolder,
    *,
    is_json: bool,
) -> int:
    from pacl.results.segmentation import Failure

    failures, overlay = [], None
    with progress("segment") as show:
        stream = model.stream(paths, labels, config=config)
        for number, (path, found) in enumerate(zip(paths, stream, strict=True), start=1):
            if isinstance(found, Failure):
                failures.append(found)
                is_named = found.source in found.error
                say("failed: " + ("" if is_named else f"{found.source}: ") + found.error)
            else:
                files = folder.save(found, path)
                overlay = overlay or files.get("overlay")
                result(_describe(found, files, is_json=is_json))
            show(number, len(paths), f"{len(failures)} failed" if failures else "")
    failures_path = folder.write_failures(failures)
    say(f"{len(paths) - len(failures):,} pictures segmented into {folder.directory}")
    if overlay:
        say(f"look at: {overlay}")
    if failures_path:
        say(f"{len(failures):,} failed, see {failures_path}; the same command tries them again")
    return SOME_FAILED if failures else DONE


def _describe(found: Segmentation, files: dict[str, Path], *, is_json: bool) -> str:
    """One picture's line."""
    if is_json:
        content = found.summary() | {"files": {name: str(path) for name, path in files.items()}}
        return jsons.dumps(content, ensure_ascii=False)
    ranked = sorted(found.areas.items(), key=lambda each: -each[1])
    areas = ", ".join(f"{label} {area:.0%}" for label, area in ranked[:N_SHOWN] if area > 0)
    return f"{found.source}: {areas or 'none of the labels'}"


def _settings(model: Model, labels: Labels, config: SegmentConfig) -> dict[str, Any]:
    """All that decides a result; the same again may be skipped."""
    sizes = asdict(config)
    del sizes["batch_size"]  # changes the speed only
    weights, _, scoring = model.fingerprint.partition(" ")
    return {
        "labels": dict(zip(labels.names, labels.prompts, strict=True)),
        "model": {"is": model.describe(), "weights": weights},
        "options": sizes,
        "scoring": scoring,
    }


def _parse_formats(text: str) -> list[str]:
    from pacl.results import FORMATS

    formats = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InputError(
            f"unknown format {unknown[0]!r}" if unknown else "no format given",
            why=f"there are: {', '.join(FORMATS)}",
            fix="--formats png,overlay",
        )
    return formats
