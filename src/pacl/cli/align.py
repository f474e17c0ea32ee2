"""pacl align: how well a model's patches match words, and whether they could."""

from __future__ import annotations

import json as jsons
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from pacl.cli.console import DONE, progress, result, say, table
from pacl.cli.options import ModelOptions
from pacl.errors import InputError

if TYPE_CHECKING:
    from pacl.evaluation.alignment import AlignmentReport, Estimate


@dataclass(frozen=True)
class Align:
    """Measure how well patches match words: patch accuracy and semantic coherence."""

    benchmark: Positional[str]
    """voc20, voc21, context59, context60, coco-object, coco-stuff171, ade150, cityscapes; a folder
    of images, masks and class names; or storybook."""

    root: Path | None = None
    """Folder with the unpacked benchmark in its official layout."""

    labels: str | None = None
    """Class names by mask id, in place of a folder's."""

    n_pairs: int = 200_000
    """Number of patch pairs whose cosine is compared."""

    n_resamples: int = 1000
    """Number of resamples of the images for the intervals; 0: no intervals."""

    seed: int = 0
    """Seeds the sampling of patches, pairs and resamples."""

    output: Path = Path("runs/align")
    """Folder for the JSON file and the plot of the ROC curves."""

    json: bool = False
    """Print the JSON in place of the table."""

    loading: ModelOptions = field(default_factory=ModelOptions)


def run_align(options: Align) -> int:
    """Measure, print, plot, and save the numbers."""
    from pacl.evaluation.alignment import measure_alignment, save_alignment
    from pacl.evaluation.plan import open_segmentation
    from pacl.evaluation.records import describe_subject

    _check(options)
    opened = open_segmentation(
        options.benchmark, root=options.root, labels=options.labels, progress=progress
    )
    for warning in opened.warnings:
        say(f"warning: {warning}")
    model = options.loading.load()
    with progress("align") as show:
        report = measure_alignment(
            model,
            opened.dataset,
            n_pairs=options.n_pairs,
            n_resamples=options.n_resamples,
            seed=options.seed,
            on_progress=lambda done, total: show(done, total, ""),
        )
    subject = describe_subject(
        model, name=options.loading.model, embedder=options.loading.embedder,
        engine=options.loading.engine,
    )  # fmt: skip
    saved = save_alignment(
        report, opened, model, subject, options.output, n_pairs=options.n_pairs, seed=options.seed
    )
    result(jsons.dumps(saved.content, indent=1) if options.json else _alignment_table(report))
    say(f"{report.n_patches:,} patches of {report.n_images:,} images")
    for note in saved.notes:
        say(note)
    return DONE


def _check(options: Align) -> None:
    if options.n_pairs < 1:
        raise InputError(f"--n-pairs must be at least 1, got {options.n_pairs}")
    if options.n_resamples < 0:
        raise InputError(f"--n-resamples must not be negative, got {options.n_resamples}")


def _alignment_table(report: AlignmentReport) -> str:
    """Return one row per measure: frozen tokens, patch embeddings, and their intervals."""
    measures = {
        "patch accuracy, all classes": lambda t: t.patch_accuracy_all,
        "patch accuracy, present classes": lambda t: t.patch_accuracy_present,
        "semantic coherence (AUROC)": lambda t: t.coherence_auroc,
    }
    share = f"{report.confidence:.0%} interval"
    header = ["measure", "frozen", share, "embedded", share]
    if not report.n_resamples:
        header = ["measure", "frozen", "embedded"]
    rows: list[list[str]] = []
    for name, pick in measures.items():
        cells = [_cells(pick(tokens), report) for tokens in (report.frozen, report.embedded)]
        rows.append([name, *(cell for pair in cells for cell in pair)])
    return table(header, rows)


def _cells(estimate: Estimate, report: AlignmentReport) -> list[str]:
    if math.isnan(estimate.value):
        return ["-", "-"] if report.n_resamples else ["-"]
    cells = [f"{estimate.value:.3f}"]
    return [*cells, f"{estimate.low:.3f}-{estimate.high:.3f}"] if report.n_resamples else cells
