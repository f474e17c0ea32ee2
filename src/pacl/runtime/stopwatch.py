"""Where the time of a job goes, by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """Seconds spent in named stages; a stage within a stage counts for the inner one only.

    Args:
        synchronise: Called before each reading of the clock. A GPU works on while Python goes
            ahead: without `torch.cuda.synchronize` its time falls on whatever waits for it.

    Attributes:
        seconds: by stage.
        background: by stage, what threads spent beside it.
    """

    def __init__(self, synchronise: Callable[[], None] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.background: dict[str, float] = {}
        self._synchronise = synchronise
        self._stages: list[str] = []
        self._since_s = 0.0

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Count the time until the end of the block for a stage."""
        self._switch()
        self._stages.append(stage)
        try:
            yield
        finally:
            self._switch()
            self._stages.pop()

    def add_background(self, seconds: Mapping[str, float]) -> None:
        """Count what threads spent meanwhile; summed over threads, so it may exceed the time."""
        for stage, more_s in seconds.items():
            self.background[stage] = self.background.get(stage, 0.0) + more_s

    def _switch(self) -> None:
        """Charge the time since the last reading to the stage that is on."""
        if self._synchronise is not None:
            self._synchronise()
        now_s = time.perf_counter()
        if self._stages:
            stage = self._stages[-1]
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now_s - self._since_s
        self._since_s = now_s
