"""pacl align: how well a model's patches match words, and whether they could."""

from __future__ import annotations

import json as jsons
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from pacl.cli.console import DONE, progress, result, say, table
from pacl.cli.options import ModelOptions
from pacl.cli.scored import describe_scored, open_benchmark, save_scores
from pacl.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from pacl.datasets.segmentation.dataset import BenchmarkDataset
    from pacl.datasets.segmentation.folder import FolderDataset
    from pacl.evaluation.alignment import AlignmentReport, Estimate, TokenAlignment


@dataclass(frozen=True)
class Align:
    """Measure how well patches match words: patch accuracy and semantic coherence."""

    benchmark: Positional[str]
    """voc20, voc21, context59, context60, coco-object, coco-stuff171, ade150, cityscapes; a folder
    of images, masks and class names; or storybook."""

    root: Path | None = None
    """Folder that the benchmark was unpacked in, in its official layout."""

    labels: str | None = None
    """Class names by mask id, in place of a folder's."""

    n_pairs: int = 200_000
    """Pairs of patches whose cosine is compared."""

    n_resamples: int = 1000
    """Resamples of the images, for the intervals; 0: no intervals."""

    seed: int = 0
    """Of the drawn patches, pairs and resamples."""

    output: Path = Path("runs/align")
    """Folder for the JSON file and the plot of the ROC curves."""

    json: bool = False
    """Print the JSON in place of the table."""

    loading: ModelOptions = field(default_factory=ModelOptions)


def run_align(options: Align) -> int:
    """Measure, print, plot, and keep the numbers."""
    from pacl.evaluation.alignment import measure_alignment

    _check(options)
    dataset = _open(options)
    model = options.loading.load()
    with progress("align") as show:
        report = measure_alignment(
            model,
            dataset,
            n_pairs=options.n_pairs,
            n_resamples=options.n_resamples,
            seed=options.seed,
            on_progress=lambda done, total: show(done, total, ""),
        )
    content = describe_scored(options.benchmark, options.loading, model)
    content |= {"n_pairs": options.n_pairs, "seed": options.seed} | report.to_json()
    result(jsons.dumps(content, indent=1) if options.json else _alignment_table(report))
    say(f"{report.n_patches:,} patches of {report.n_images:,} images")
    path = save_scores(content, options.output, model, dataset)
    _draw(report, path.with_suffix(".png"))
    return DONE


def _check(options: Align) -> None:
    if options.n_pairs < 1:
        raise InputError(f"--n-pairs must be at least 1, got {options.n_pairs}")
    if options.n_resamples < 0:
        raise InputError(f"--n-resamples must not be negative, got {options.n_resamples}")


def _open(options: Align) -> FolderDataset | BenchmarkDataset:
    """A benchmark that has been checked, or a folder, or storybook."""
    from pacl.datasets.segmentation import NAMES, load_benchmark
    from pacl.datasets.segmentation.check import check_benchmark

    name = options.benchmark
    if name == "folder" and options.root is not None:
        name = str(options.root)
    if name not in NAMES:
        if name != "storybook":
            check_benchmark("folder", Path(name), labels=options.labels).require_usable()
        return open_benchmark(name, options.labels)
    if options.root is None:
        raise InputError(f"{name} needs --root", fix=f"pacl align {name} --root DIR")
    if options.labels is not None:
        raise InputError(f"--labels: {name} has class names of its own", fix="leave --labels out")
    report = check_benchmark(name, options.root)
    report.require_usable()
    for warning in report.warnings:
        say(f"warning: {warning}")
    return load_benchmark(name, options.root)


def _alignment_table(report: AlignmentReport) -> str:
    """A line per measure: frozen tokens, patch embeddings, with their intervals."""
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
    cells = [f"{estimate.value:.3f}"]
    return [*cells, f"{estimate.low:.3f}-{estimate.high:.3f}"] if report.n_resamples else cells


def _draw(report: AlignmentReport, path: Path) -> None:
    """Plot both ROC curves; without matplotlib, say so."""
    from pacl.results.figures import draw_roc

    curves = {"frozen tokens": report.frozen, "patch embeddings": report.embedded}
    try:
        draw_roc({_legend(name, each): _rates(each.roc) for name, each in curves.items()}, path)
    except EnvironmentProblem as error:
        say(f"no plot: {error}")
    else:
        say(f"wrote {path}")


def _legend(name: str, tokens: TokenAlignment) -> str:
    return f"{name}, AUROC {tokens.coherence_auroc.value:.3f}"


def _rates(roc: dict[str, Any]) -> tuple[list[float], list[float]]:
    return roc["fpr"], roc["tpr"]
