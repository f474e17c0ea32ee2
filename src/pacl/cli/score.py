"""pacl evaluate: a model against true masks."""

from __future__ import annotations

import json as jsons
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from pacl.cli.exit_codes import DONE
from pacl.cli.options import ModelOptions
from pacl.cli.scored import describe_scored, open_benchmark, save_scores
from pacl.cli.talk import duration, progress, result, say, table
from pacl.segment_config import SegmentConfig

if TYPE_CHECKING:
    from pacl.evaluate import SegmentationReport


@dataclass(frozen=True)
class Evaluate:
    """Segment a benchmark's pictures with its class names and compare with its masks."""

    benchmark: Positional[str]
    """A folder of images/NAME.jpg, masks/NAME.png and class names (classes.json, classes.txt, or
    a known folder name such as camvid); or storybook: 300 drawn scenes that no training saw."""

    labels: str | None = None
    """Class names by mask id, in place of the folder's: "sky,road" or a .txt or .json file."""

    output: Path = Path("runs/evaluate")
    """Folder for the JSON file with the scores and the protocol."""

    json: bool = False
    """Print the JSON in place of the table."""

    loading: ModelOptions = field(default_factory=ModelOptions)

    segmenting: SegmentConfig = field(default_factory=SegmentConfig)


def run_evaluate(options: Evaluate) -> int:
    """Score, print, and keep the numbers with their protocol."""
    from pacl.evaluate import evaluate_folder

    config = options.segmenting
    dataset = open_benchmark(options.benchmark, options.labels)
    model = options.loading.load()
    with progress("evaluate") as show:
        report = evaluate_folder(
            model,
            dataset,
            config=config,
            on_progress=lambda done, total, miou: show(done, total, f"mIoU {miou:.3f}"),
        )
    content = describe_scored(options.benchmark, options.loading, model) | report.to_json()
    result(jsons.dumps(content, indent=1) if options.json else _iou_table(report))
    say(f"{report.n_images:,} images, {duration(report.seconds)}")
    save_scores(content, options.output, model, dataset)
    return DONE


def _iou_table(report: SegmentationReport) -> str:
    rows = [
        [label, "-" if iou != iou else f"{iou:.3f}"]
        for label, iou in zip(report.labels, report.iou, strict=True)
    ]
    rows += [
        ["mIoU", f"{report.miou:.3f}"],
        ["pixel accuracy", f"{report.pixel_accuracy:.3f}"],
        ["mean accuracy", f"{report.mean_accuracy:.3f}"],
    ]
    return table(["class", "IoU"], rows)
