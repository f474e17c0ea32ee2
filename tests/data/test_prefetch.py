"""Reading ahead keeps the order, stays one batch ahead, and stops when the caller does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pacl.data.prefetch import prefetch


def test_batches_come_back_in_order_with_what_they_loaded_to() -> None:
    def load(item: int) -> int:
        time.sleep(0.01 * (2 - item % 3))  # of a batch, the first item is the last to be ready
        return item * item

    batches = [[0, 1, 2], [], [3], [4, 5]]
    found = list(prefetch(load, batches, workers=3))
    assert found == [(batch, [item * item for item in batch]) for batch in batches]
    assert list(prefetch(load, [], workers=1)) == []


def test_the_next_batch_is_loaded_while_the_first_is_in_use_and_no_more() -> None:
    drawn: list[int] = []
    second_loaded = threading.Event()

    def draw() -> Iterator[list[int]]:
        for number in range(5):
            drawn.append(number)
            yield [number]

    def load(item: int) -> int:
        if item == 1:
            second_loaded.set()
        return item

    batches = prefetch(load, draw(), workers=1)
    assert next(batches) == ([0], [0])
    assert second_loaded.wait(timeout=10)
    assert drawn == [0, 1]
    batches.close()


def test_an_error_is_raised_when_its_batch_is_due() -> None:
    def load(item: int) -> int:
        if item == 2:
            raise ValueError("item 2")
        return item

    batches = prefetch(load, [[0], [1], [2], [3]], workers=2)
    assert [next(batches)[1], next(batches)[1]] == [[0], [1]]
    with pytest.raises(ValueError, match="item 2"):
        next(batches)


def test_closing_cancels_what_has_not_begun() -> None:
    loaded: list[int] = []
    gate = threading.Event()

    def load(item: int) -> int:
        if item > 0:
            gate.wait(timeout=10)
        loaded.append(item)
        return item

    batches = prefetch(load, [[0], [1, 2, 3, 4]], workers=1)
    next(batches)
    threading.Timer(0.05, gate.set).start()
    batches.close()
    assert loaded in ([0], [0, 1])
