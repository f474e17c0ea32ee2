"""pacl segment: many images into a folder, skipping what is done and continuing after errors."""

from __future__ import annotations

import json as jsons
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pacl.cli.console import DONE, SOME_FAILED, progress, result, say
from pacl.cli.options import ModelOptions, Sources, find_named, warn_of_photographs
from pacl.inference.config import SegmentConfig

if TYPE_CHECKING:
    from pacl.api import Model
    from pacl.data.sources import Source
    from pacl.results import Segmentation
    from pacl.results.folder import OutputFolder
    from pacl.text.labels import Labels

N_SHOWN = 4


@dataclass(frozen=True)
class Segment:
    """Label every pixel of images with the words you give."""

    sources: Sources
    """Images: files, folders, or patterns in quotes such as "photos/**/*.jpg"."""

    labels: str
    """The classes: "sky,road,car", or a .txt or .json file; {"car": ["car", "van"]} in a .json
    file gives a class several names."""

    output: Path = Path("runs/segment")
    """Folder for the results; its pictures.jsonl lists the files of each image."""

    formats: str = "png,overlay,json"
    """What is written for each image: png (label map), overlay, json (areas), npz (arrays), masks
    and heatmaps (a PNG per class); for the folder: coco, coco-polygons, panoptic, cvat,
    label-studio, label-studio-brush, ultralytics, lightly (docs/labels.md)."""

    overwrite: bool = False
    """Segment images again that are already done."""

    json: bool = False
    """Print one JSON object per image."""

    loading: ModelOptions = field(default_factory=ModelOptions)

    segmenting: SegmentConfig = field(default_factory=SegmentConfig)


def run_segment(options: Segment) -> int:
    """Segment what is not done yet; 1 if some images failed."""
    from pacl.results.folder import OutputFolder
    from pacl.text.labels import parse_labels

    labels, config = parse_labels(options.labels), options.segmenting
    formats = dict.fromkeys(word.strip() for word in options.formats.split(",") if word.strip())
    folder = OutputFolder(options.output, list(formats))
    sources = find_named(options.sources, example='pacl segment photos/ --labels "sky,road,car"')
    model = options.loading.load()
    warn_of_photographs(model)
    folder.claim(model.settings(labels, config), may_replace=options.overwrite)
    todo = [source for source in sources if options.overwrite or not folder.has(source)]
    if len(todo) < len(sources):
        say(f"{len(sources) - len(todo):,} of {len(sources):,} images are done already: skipped")
    return _segment_all(model, todo, labels, config, folder, is_json=options.json)


def _segment_all(
    model: Model,
    sources: list[Source],
    labels: Labels,
    config: SegmentConfig,
    folder: OutputFolder,
    *,
    is_json: bool,
) -> int:
    from pacl.results.segmentation import Failure

    failures, overlay = [], None
    with progress("segment") as show:
        stream = model.stream(sources, labels, config=config)
        for number, (source, found) in enumerate(zip(sources, stream, strict=True), start=1):
            if isinstance(found, Failure):
                failures.append(found)
                is_named = found.source in found.error
                say("failed: " + ("" if is_named else f"{found.source}: ") + found.error)
            else:
                files = folder.save(found, source.name)
                overlay = overlay or files.get("overlay")
                result(_describe(found, files, is_json=is_json))
            show(number, len(sources), f"{len(failures)} failed" if failures else "")
    failures_path = folder.close(failures)
    say(f"{len(sources) - len(failures):,} images segmented into {folder.directory}")
    if overlay:
        say(f"look at: {overlay}")
    if failures_path:
        say(f"{len(failures):,} failed, see {failures_path}; the same command tries them again")
    return SOME_FAILED if failures else DONE


def _describe(found: Segmentation, files: dict[str, Path], *, is_json: bool) -> str:
    """Return one image's line."""
    if is_json:
        content = found.summary() | {"files": {name: str(path) for name, path in files.items()}}
        return jsons.dumps(content, ensure_ascii=False)
    ranked = sorted(found.areas.items(), key=lambda each: -each[1])
    areas = ", ".join(f"{label} {area:.0%}" for label, area in ranked[:N_SHOWN] if area > 0)
    return f"{found.source}: {areas or 'none of the labels'}"
