"""pacl train and pacl quickstart."""

from __future__ import annotations

import logging
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacl.cli.exit_codes import DONE, INTERRUPTED
from pacl.cli.talk import duration, progress, result, say, table
from pacl.errors import InputError
from pacl.train_config import TrainConfig

if TYPE_CHECKING:
    from pacl.train import Progress, TrainResult


def run_train(config: TrainConfig) -> int:
    """Train, or resume the run in the output directory; under torchrun, with its processes."""
    config.resolve()  # a wrong value is refused before anything is read
    from pacl.distributed import join, leave, lost_processes_named, rank, world_size

    with lost_processes_named():
        join()
        if rank() == 0 and world_size() > 1:
            say(f"{world_size()} processes share every batch")
        code = _train(config) if rank() == 0 else _follow(config)
        leave()
    return code


def _follow(config: TrainConfig) -> int:
    """Be one of several processes and leave the talking to the first."""
    from pacl.train import train

    logging.getLogger("pacl").setLevel(logging.WARNING)
    return INTERRUPTED if train(config).is_stopped else DONE


def _train(config: TrainConfig) -> int:
    from pacl.train import train

    say(f"reading {config.data} and preparing {config.model}")
    with progress("train") as show:

        def on_step(state: Progress) -> None:
            detail = (
                f"loss {state.loss:.3f}  accuracy {state.accuracy:.0%}  "
                f"{state.images_per_s:,.0f} images/s  {duration(state.eta_s)} left"
            )
            show(state.step, state.n_steps, detail)

        done = train(
            config,
            progress=on_step,
            on_encoded=lambda what, n_done, n: show(n_done, n, f"{what} encoded"),
        )
    for note in done.notes:
        say(note)
    if done.is_stopped:
        say(f"stopped after step {done.steps:,} of {done.n_steps:,}; the checkpoint is complete")
        say("next: the same command again goes on from there")
        return INTERRUPTED
    _report_training(config, done)
    return DONE


def _report_training(config: TrainConfig, done: TrainResult) -> None:
    loss = "" if done.loss != done.loss else f", loss {done.loss:.3f}"
    say(f"{done.steps:,} steps{loss}, {duration(done.seconds)}; metrics: {done.metrics_path}")
    result(f"checkpoint: {done.checkpoint_dir}")
    output = shlex.quote(str(config.output))
    if config.objective == "clip":
        data = shlex.quote(str(config.data))
        say(f"next: pacl train --data {data} --model {output} --output {output}-pacl")
    else:
        say(f'next: pacl segment PHOTOS --labels "sky,road,tree" --model {output}')


@dataclass(frozen=True)
class Quickstart:
    """See it work, offline: draw scenes, train on their captions, compare with baselines."""

    output: Path = Path("runs/quickstart")
    """Where everything is written."""

    n_train: int | None = None
    """Captioned pictures to train on; none: as many as the published table took."""

    n_test: int | None = None
    """Pictures to score on; none: likewise."""

    epochs: int | None = None
    """Passes over the training pictures; none: likewise."""

    seed: int | None = None
    """Of the drawn world; none: likewise."""

    json: bool = False
    """Print the report as JSON in place of the table."""


def run_quickstart(options: Quickstart) -> int:
    """Draw, train, evaluate; print the table."""
    import json

    from pacl import distributed, quickstart

    if distributed.is_launched():
        raise InputError("the quickstart runs on one process", fix="pacl quickstart, by itself")
    settings = {k: v for k, v in asdict(options).items() if k != "json" and v is not None}
    config = quickstart.QuickstartConfig(**settings)
    with progress("quickstart") as show:
        report = quickstart.run_quickstart(
            config, on_stage=lambda stage, done, total: show(done, total, stage)
        )
    result(json.dumps(report, indent=1) if options.json else _quickstart_table(report))
    for path in report["files"]:
        say(f"wrote {path}")
    say(f"took {duration(sum(report['seconds'].values()))}")
    model, pictures = options.output / "pacl", options.output / "storybook" / "test" / "images"
    say(f'next: pacl segment {pictures} --labels "sky,grass,house,tree" --model {model}')
    return DONE


def _quickstart_table(report: dict[str, Any]) -> str:
    columns = {
        "miou": "mIoU",
        "pixel_accuracy": "pixel acc.",
        "patch_accuracy_all": "patch acc. (all)",
        "patch_accuracy_present": "patch acc. (present)",
        "classification_top1": "top-1",
    }
    rows = [
        [row["method"], *("-" if row[key] is None else f"{row[key]:.3f}" for key in columns)]
        for row in report["rows"]
    ]
    lines = [
        table(["method", *columns.values()], rows),
        "",
        f"semantic coherence of the frozen patches (AUROC): {report['coherence_auroc']:.3f}",
    ]
    pairs = report["compositions"]
    lines.append(
        f"IoU of things asked for by colour: {pairs['seen_iou']:.3f} for pairs captioned in "
        f"training, {pairs['heldout_iou']:.3f} for pairs that never were"
    )
    return "\n".join(lines)
