"""Stopping long work between two of its steps, where it can be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pacl.runtime import distributed


@contextmanager
def interrupts_noted() -> Iterator[Callable[[], int]]:
    """Turn the first SIGINT or SIGTERM into its number, 0 before; a second one interrupts at once.

    Under a launcher it does not: one may pass on to the processes what the terminal has sent them
    already, and it ends them by itself when they take too long.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        received.append(number)
        if distributed.world_size() > 1:
            return
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
