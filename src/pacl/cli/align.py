"""pacl align: how well a model's patches match words."""

from __future__ import annotations

import json as jsons
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from pacl.cli.exit_codes import DONE
from pacl.cli.options import ModelOptions
from pacl.cli.scored import describe_scored, open_benchmark, save_scores
from pacl.cli.talk import progress, result, say, table

if TYPE_CHECKING:
    from pacl.align import AlignmentReport


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


def run_align(options: Align) -> int:
    """Measure, print, and keep the numbers."""
    from pacl.align import measure_alignment

    dataset = open_benchmark(options.benchmark, options.labels)
    model = options.loading.load()
    with progress("align") as show:
        report = measure_alignment(
            model,
            dataset,
            n_pairs=options.n_pairs,
            seed=options.seed,
            on_progress=lambda done, total: show(done, total, ""),
        )
    content = describe_scored(options.benchmark, options.loading, model) | report.to_json()
    result(jsons.dumps(content, indent=1) if options.json else _alignment_table(report))
    say(f"{report.n_patches:,} patches of {report.n_images:,} images")
    save_scores(content, options.output, model, dataset)
    return DONE


def _alignment_table(report: AlignmentReport) -> str:
    rows = {
        "patch accuracy, all classes": report.patch_accuracy_all,
        "patch accuracy, present classes": report.patch_accuracy_present,
        "semantic coherence, frozen patches (AUROC)": report.coherence_auroc,
        "semantic coherence, patch embeddings (AUROC)": report.coherence_auroc_embedded,
    }
    return table(["measure", "value"], [[name, f"{value:.3f}"] for name, value in rows.items()])
