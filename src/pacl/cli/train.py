"""pacl train and pacl quickstart."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING

from pacl.cli.console import DONE, INTERRUPTED, duration, progress, result, say
from pacl.training.config import TrainConfig

if TYPE_CHECKING:
    from pacl.training.train import Progress, TrainResult


def run_train(config: TrainConfig) -> int:
    """Train, or resume the run in the output directory; under torchrun, on all its processes."""
    config.resolve()  # a wrong value is refused before anything is read
    from pacl.runtime.distributed import join, leave, lost_processes_named, rank, world_size

    with lost_processes_named():
        join()
        if rank() == 0 and world_size() > 1:
            say(f"{world_size()} processes share every batch")
        code = _train(config) if rank() == 0 else _follow(config)
        leave()
    return code


def _follow(config: TrainConfig) -> int:
    """Train as one of several processes; only the first prints."""
    from pacl.training.train import train

    logging.getLogger("pacl").setLevel(logging.WARNING)
    return INTERRUPTED if train(config).is_stopped else DONE


def _train(config: TrainConfig) -> int:
    from pacl.training.train import train

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
        say("next: run the same command again to resume from there")
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
