"""pacl align: how well a model's patches match words, and whether they could."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from pacl.cli.console import DONE, progress, result, result_json, say, table
from pacl.cli.options import ModelOptions


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
    from pacl.evaluation.alignment import check_sampling, measure_alignment, save_alignment
    from pacl.evaluation.plan import open_segmentation
    from pacl.evaluation.records import describe_subject
    from pacl.evaluation.tables import alignment_table

    check_sampling(n_pairs=options.n_pairs, n_resamples=options.n_resamples)
    opened = open_segmentation(
        options.benchmark, root=options.root, labels=options.labels, progress=progress
    )
    say(*(f"warning: {warning}" for warning in opened.warnings))
    model = options.loading.load()
    with progress("align") as show:
        report = measure_alignment(
            model,
            opened.dataset,
            n_pairs=options.n_pairs,
            n_resamples=options.n_resamples,
            seed=options.seed,
            on_progress=show,
        )
    subject = describe_subject(
        model, name=options.loading.model, embedder=options.loading.embedder,
        engine=options.loading.engine,
    )  # fmt: skip
    saved = save_alignment(
        report, opened, model, subject, options.output, n_pairs=options.n_pairs, seed=options.seed
    )
    if options.json:
        result_json(saved.content)
    else:
        result(table(*alignment_table(report)))
    say(f"{report.n_patches:,} patches of {report.n_images:,} images")
    say(*saved.notes)
    return DONE
