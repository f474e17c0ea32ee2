"""Reading ahead keeps order, bounds what is held, and raises errors at their item's turn."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from pacl.data.prefetch import prefetch


def test_everything_comes_in_order() -> None:
    for n_ahead in (0, 1, 7, 100):
        assert list(prefetch(range(40), lambda k: k * k, n_ahead=n_ahead)) == [
            k * k for k in range(40)
        ]


def test_it_reads_on_while_the_caller_works_and_no_further() -> None:
    started, third = [], threading.Event()

    def read(k: int) -> int:
        started.append(k)
        if k == 2:
            third.set()
        return k

    reading = prefetch(count(), read, n_ahead=2)
    assert next(reading) == 0
    assert third.wait(timeout=10)  # read without having been asked for
    assert sorted(started) == [0, 1, 2]
    reading.close()


def test_an_error_comes_at_its_turn() -> None:
    def read(k: int) -> int:
        if k == 3:
            raise ValueError("the third")
        return k

    reading = prefetch(range(9), read, n_ahead=5)
    assert [next(reading) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(reading)


def test_closing_stops_the_threads() -> None:
    reading = prefetch(count(), lambda k: k, n_ahead=3)
    next(reading)
    reading.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("read")]
