"""pacl train and pacl quickstart."""

from __future__ import annotations

import logging
import math
import shlex
from collections import deque
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
    return _code(train(config))


def _train(config: TrainConfig) -> int:
    from pacl.training.train import train

    say(f"reading {config.data} and preparing {config.model}")
    with progress("train") as show:
        watch = _Watch()

        def on_step(state: Progress) -> None:
            nouns = "" if math.isnan(state.loss_nouns) else f"nouns {state.loss_nouns:.2f}  "
            detail = (
                f"loss per caption {state.loss_captions:.2f} (chance "
                f"{math.log(state.batch_size):.2f})  {nouns}accuracy {state.accuracy:.0%}  "
                f"{state.images_per_s:,.0f} images/s  {duration(state.eta_s)} left"
            )
            show(state.step, state.n_steps, detail)
            watch.add(state)

        done = train(
            config,
            progress=on_step,
            on_encoded=lambda what, n_done, n: show(n_done, n, f"images {what}"),
        )
    for note in done.notes:
        say(note)
    if done.is_stopped:
        say(f"stopped after step {done.steps:,} of {done.n_steps:,}; the checkpoint is complete")
        say("next: run the same command again to resume from there")
        return _code(done)
    _report_training(config, done)
    return DONE


def _code(done: TrainResult) -> int:
    """SIGTERM is how a scheduler asks for a checkpoint: the run obeyed, which is no failure."""
    return DONE if not done.is_stopped or done.is_terminated else INTERRUPTED


class _Watch:
    """Says what there is to see, where the loss goes, and once whether the run learns."""

    _SPAN, _FIRST = 20, 5
    """Steps whose mean loss is compared with chance; steps after which a run is first judged."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=self._SPAN)
        self._is_told = False

    def add(self, state: Progress) -> None:
        for sentence in state.news:
            say(sentence)
        self._last.append(state.loss_captions)
        if len(self._last) == self._FIRST < state.n_steps:
            first, last = self._last[0], self._last[-1]
            say(
                f"step {state.step:,}: the loss per caption went from {first:.2f} to {last:.2f}"
                f"{' and falls' if last < first else ', not down yet'}; guessing is at "
                f"{math.log(state.batch_size):.2f}"
            )
        if self._is_told or len(self._last) < self._SPAN:
            return
        chance, loss = math.log(state.batch_size), sum(self._last) / len(self._last)
        if loss <= 0.98 * chance:
            self._is_told = True
            say(
                f"step {state.step:,}: it learns: the loss per caption is {loss:.2f}, below "
                f"{chance:.2f}, that of guessing; an image finds its caption in "
                f"{state.accuracy:.1%} of cases (guessing: {1 / state.batch_size:.1%})"
            )
        elif state.step >= max(50, state.n_steps // 20):
            self._is_told = True
            say(
                f"warning: after {state.step:,} steps the loss per caption is still at chance "
                f"({chance:.2f})\n  do captions belong to their images? see: pacl data check; "
                "or try a higher --lr, or no --warmup"
            )


def _report_training(config: TrainConfig, done: TrainResult) -> None:
    say(f"{done.steps:,} steps, {duration(done.seconds)}; metrics: {done.metrics_path}")
    for sentence in done.meaning:
        say(sentence)
    if done.best is not None:
        say(done.best)
    say(f"what was trained, on what, and these numbers: {config.output / 'card.md'}")
    result(f"checkpoint: {done.checkpoint_dir}")
    output = shlex.quote(str(config.output))
    if config.objective == "clip":
        data = shlex.quote(str(config.data))
        say(f"next: pacl train --data {data} --model {output} --output {output}-pacl")
    else:
        say(f'next: pacl segment PHOTOS --labels "sky,road,tree" --model {output}')
