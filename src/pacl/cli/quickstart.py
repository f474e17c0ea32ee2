"""pacl quickstart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from pacl.cli.console import DONE, duration, progress, result, result_json, say, table
from pacl.errors import InputError


@dataclass(frozen=True)
class Quickstart:
    """See it work, offline: draw scenes, train on their captions, compare with baselines."""

    output: Path = Path("runs/quickstart")
    """Where everything is written."""

    n_train: int | None = None
    """Captioned images to train on; none: as many as the published table took."""

    n_test: int | None = None
    """Images to score on; none: likewise."""

    epochs: int | None = None
    """Passes over the training images; none: likewise."""

    paper_epochs: int | None = None
    """Passes of the row with the paper's method; none: likewise."""

    seed: int | None = None
    """Seeds the drawn world; none: likewise."""

    json: bool = False
    """Print the report as JSON in place of the table."""


def run_quickstart(options: Quickstart) -> int:
    """Draw, train, evaluate; print the table."""
    from pacl import quickstart
    from pacl.quickstart.scores import report_sentences, report_table
    from pacl.runtime import distributed

    if distributed.is_launched():
        raise InputError("the quickstart runs on one process", fix="pacl quickstart, by itself")
    settings = {k: v for k, v in asdict(options).items() if k != "json" and v is not None}
    config = quickstart.QuickstartConfig(**settings)
    with progress("quickstart") as show:
        report = quickstart.run_quickstart(
            config, on_stage=lambda stage, done, total: show(done, total, stage)
        )
    if options.json:
        result_json(report)
    else:
        result(table(*report_table(report)), "", *report_sentences(report))
    say(*(f"wrote {path}" for path in report["files"]))
    if not report["files"][-1].endswith("curve.png"):
        say("no curve.png: it needs matplotlib (pip install matplotlib)")
    say(f"took {duration(sum(report['seconds'].values()))}")
    model, images = options.output / "pacl", options.output / "storybook" / "test" / "images"
    say(f'next: pacl segment {images} --labels "sky,grass,house,tree" --model {model}')
    return DONE
