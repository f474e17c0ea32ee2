"""pacl train."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pacl.cli.console import DONE, INTERRUPTED, duration, progress, result, say, say_next
from pacl.training.config import TrainConfig

if TYPE_CHECKING:
    from pacl.training.train import Progress, TrainResult


def run_train(config: TrainConfig) -> int:
    """Train, or resume the run in the output directory; under torchrun, on all its processes."""
    config.resolve()  # a wrong value is refused before anything is read
    from pacl.runtime.distributed import joined, world_size
    from pacl.training.train import train

    with joined() as is_first:
        if is_first and world_size() > 1:
            say(f"{world_size()} processes share every batch")
        done = _train(config) if is_first else train(config)
    # SIGTERM is how a scheduler asks for a checkpoint: the run obeyed, which is no failure.
    return INTERRUPTED if done.is_stopped and not done.is_terminated else DONE


def _train(config: TrainConfig) -> TrainResult:
    from pacl.training.train import train

    say(f"reading {config.data} and preparing {config.model}")
    with progress("train") as show:

        def on_step(state: Progress) -> None:
            left = f"{duration(state.eta_s)} left"
            show(state.step, state.n_steps, f"{state.describe()}  {left}")
            say(*state.news)

        done = train(
            config,
            progress=on_step,
            on_encoded=lambda what, n_done, n: show(n_done, n, f"images {what}"),
        )
    say(*done.notes)
    if done.is_stopped:
        say(f"stopped after step {done.steps:,} of {done.n_steps:,}; the checkpoint is complete")
        say("next: run the same command again to resume from there")
    else:
        _report_training(config, done)
    return done


def _report_training(config: TrainConfig, done: TrainResult) -> None:
    say(f"{done.steps:,} steps, {duration(done.seconds)}; metrics: {done.metrics_path}")
    say(*done.meaning)
    if done.best is not None:
        say(done.best)
    say(f"what was trained, on what, and these numbers: {config.output / 'card.md'}")
    result(f"checkpoint: {done.checkpoint_dir}")
    output = str(config.output)
    if config.objective == "clip":
        say_next("train", data=config.data, model=output, output=f"{output}-pacl")
    else:
        say(f'next: pacl segment PHOTOS --labels "sky,road,tree" --model {shlex.quote(output)}')
