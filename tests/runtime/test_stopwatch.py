from __future__ import annotations

import pytest

from pacl.runtime import stopwatch
from pacl.runtime.stopwatch import Stopwatch


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def perf_counter(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


def test_a_stage_within_a_stage_counts_once(clock: Clock) -> None:
    watch = Stopwatch()
    for _ in range(2):
        clock.now_s += 7  # between the stages: nobody's
        with watch.time("outer"):
            clock.now_s += 1
            with watch.time("inner"):
                clock.now_s += 10
            clock.now_s += 2
    assert watch.seconds == {"outer": 6, "inner": 20}


def test_an_error_ends_its_stage(clock: Clock) -> None:
    watch = Stopwatch()

    def fail() -> None:
        with watch.time("stage"):
            clock.now_s += 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    clock.now_s += 5
    with watch.time("stage"):
        clock.now_s += 1
    assert watch.seconds == {"stage": 4}


def test_a_gpu_is_waited_for(clock: Clock) -> None:
    def finish() -> None:
        clock.now_s += 4  # what was queued

    watch = Stopwatch(finish)
    with watch.time("encoder"):
        pass
    assert watch.seconds == {"encoder": 4}
