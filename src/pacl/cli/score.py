"""pacl evaluate and pacl align: a model against true masks."""

from __future__ import annotations

import json as jsons
import re
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from pacl.cli.exit_codes import DONE
from pacl.cli.options import ModelOptions, SegmentOptions, is_on_storybook
from pacl.cli.talk import duration, progress, result, say, table

if TYPE_CHECKING:
    from pacl.align import AlignmentReport
    from pacl.api import Model
    from pacl.data.folder import FolderDataset
    from pacl.evaluate import SegmentationReport

STORYBOOK_DIR = Path("runs/storybook")
N_SCENES = 300
_MEANINGLESS = (
    "these numbers mean nothing yet: the backbone is the small Storybook model, which has seen "
    "drawn scenes only, and these are other pictures\n"
    "  use a CLIP that has seen photographs: --model openai/clip-vit-base-patch16"
)


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

    segmenting: SegmentOptions = field(default_factory=SegmentOptions)


@dataclass(frozen=True)
class Align:
    """Measure how well patches match words: patch accuracy and semantic coherence."""

    benchmark: Positional[str]
    """As for evaluate: a folder of images, masks and class names, or storybook."""

    labels: str | None = None
    """Class names by mask id, in place of the folder's."""

    n_pairs: int = 200_000
    """Pairs of patches whose cosine is compared."""

    seed: int = 0
    """Of the drawn patches and pairs."""

    output: Path = Path("runs/align")
    """Folder for the JSON file."""

    json: bool = False
    """Print the JSON in place of the table."""

    loading: ModelOptions = field(default_factory=ModelOptions)


def run_evaluate(options: Evaluate) -> int:
    """Score, print, and keep the numbers with their protocol."""
    from pacl.evaluate import evaluate_folder

    config = options.segmenting.to_config()
    dataset = _open_benchmark(options.benchmark, options.labels)
    model = options.loading.load()
    with progress("evaluate") as show:
        report = evaluate_folder(
            model,
            dataset,
            config=config,
            on_progress=lambda done, total, miou: show(done, total, f"mIoU {miou:.3f}"),
        )
    content = _provenance(options.benchmark, options.loading, model) | report.to_json()
    result(jsons.dumps(content, indent=1) if options.json else _iou_table(report))
    say(f"{report.n_images:,} images, {duration(report.seconds)}")
    _close(content, options.output, model, dataset)
    return DONE


def run_align(options: Align) -> int:
    """Measure, print, and keep the numbers."""
    from pacl.align import measure_alignment

    dataset = _open_benchmark(options.benchmark, options.labels)
    model = options.loading.load()
    with progress("align") as show:
        report = measure_alignment(
            model,
            dataset,
            n_pairs=options.n_pairs,
            seed=options.seed,
            on_progress=lambda done, total: show(done, total, ""),
        )
    content = _provenance(options.benchmark, options.loading, model) | report.to_json()
    result(jsons.dumps(content, indent=1) if options.json else _alignment_table(report))
    say(f"{report.n_patches:,} patches of {report.n_images:,} images")
    _close(content, options.output, model, dataset)
    return DONE


def _open_benchmark(name: str, labels: str | None) -> FolderDataset:
    """The folder of that name; storybook is drawn where it is not there yet."""
    from pacl.data.folder import FolderDataset
    from pacl.data.storybook import draw_storybook

    if name != "storybook":
        return FolderDataset(name, labels=labels)
    with progress("draw storybook") as show:
        folders = draw_storybook(
            STORYBOOK_DIR,
            counts={"test": N_SCENES},
            on_progress=lambda done, total: show(done, total, ""),
        )
    return FolderDataset(folders["test"], labels=labels)


def _provenance(benchmark: str, loading: ModelOptions, model: Model) -> dict[str, Any]:
    """What was scored, for the JSON file."""
    return {
        "benchmark": benchmark,
        "model": loading.model,
        "embedder": loading.embedder,
        "description": model.describe(),
        "pacl": metadata.version("pacl"),
    }


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


def _alignment_table(report: AlignmentReport) -> str:
    rows = {
        "patch accuracy, all classes": report.patch_accuracy_all,
        "patch accuracy, present classes": report.patch_accuracy_present,
        "semantic coherence, frozen patches (AUROC)": report.coherence_auroc,
        "semantic coherence, patch embeddings (AUROC)": report.coherence_auroc_embedded,
    }
    return table(["measure", "value"], [[name, f"{value:.3f}"] for name, value in rows.items()])


def _close(content: dict[str, Any], output: Path, model: Model, dataset: FolderDataset) -> None:
    """Keep the numbers, and say so where they mean nothing."""
    from pacl.results.files import write_atomically

    words = (dataset.root.resolve().name, content["model"], content["embedder"] or "")
    name = "_".join(re.sub(r"[^\w.]+", "-", word).strip("-.") for word in words if word)
    path = output / f"{name}.json"
    write_atomically(path, (jsons.dumps(content, indent=1) + "\n").encode())
    say(f"wrote {path}")
    is_drawn = (dataset.root / "storybook.json").is_file()
    if is_on_storybook(model) and not is_drawn:
        say(f"note: {_MEANINGLESS}")
