"""Reading ahead: one batch is loaded in threads while the caller works on another."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

N_THREADS = min(8, os.cpu_count() or 1)
"""Enough to keep a model busy."""


def prefetch(
    load: Callable[[Item], Loaded], batches: Iterable[Sequence[Item]], *, workers: int
) -> Generator[tuple[Sequence[Item], list[Loaded]], None, None]:
    """Load batches of items in order, one batch ahead of the caller.

    Args:
        load: Loads one item, in a thread. What it raises is raised here when its batch's turn
            comes.
        batches: Drawn lazily, one ahead; at most two loaded batches exist at a time.
        workers: Threads that load.

    Yields:
        Each batch and what its items loaded to, in their order.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    try:
        ahead: tuple[Sequence[Item], list[Future[Loaded]]] | None = None
        for batch in batches:
            current, ahead = ahead, (batch, [pool.submit(load, item) for item in batch])
            if current is not None:
                yield current[0], [future.result() for future in current[1]]
        if ahead is not None:
            yield ahead[0], [future.result() for future in ahead[1]]
    finally:
        pool.shutdown(cancel_futures=True)
