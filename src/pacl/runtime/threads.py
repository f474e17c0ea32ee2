"""Threads that each run torch's operations alone.

Operations that all threads share wait, at each of some thousand small ones, for whichever thread
another program keeps from running. Larger pieces of work, one thread each, wait once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def map_on_threads(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], *, device: torch.device
) -> Iterator[Result]:
    """Do pieces of work; on a CPU each of torch's threads takes the next one when it is free.

    Args:
        work: Must not depend on settings of the calling thread, such as autocast; but for inference
            mode, which is the caller's. Without gradients.
        pieces: What is passed to it.
        device: Where it computes; on another than a CPU the calling thread does all.

    Yields:
        The results in the order of the pieces, on any number of threads; few wait to be taken.
    """
    n_threads = torch.get_num_threads() if device.type == "cpu" else 1
    if n_threads == 1:
        yield from map(work, pieces)
        return
    workers, waiting = _workers(n_threads), deque[Future[Result]]()
    is_inference = torch.is_inference_mode_enabled()

    def run(piece: Piece) -> Result:
        with torch.inference_mode(is_inference), torch.no_grad():
            return work(piece)

    for piece in pieces:
        waiting.append(workers.submit(run, piece))
        if len(waiting) > n_threads:
            yield waiting.popleft().result()
    for each in waiting:
        yield each.result()


@cache
def _workers(n_threads: int) -> ThreadPoolExecutor:
    """Return threads whose operations by torch run on themselves alone."""
    workers, have_all = ThreadPoolExecutor(n_threads, "pacl"), Barrier(n_threads)

    def start(_: int) -> None:
        torch.get_num_threads()  # a thread's first question for it takes the process's number
        torch.set_num_threads(1)
        have_all.wait()

    list(workers.map(start, range(n_threads)))
    torch.set_num_threads(n_threads)  # threads that others start take the last number that was set
    return workers
