"""Reading ahead: threads read what comes next while the caller works on what came before."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")

N_THREADS = min(8, os.cpu_count() or 1)


def prefetch(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    *,
    n_ahead: int,
    n_threads: int = N_THREADS,
) -> Generator[Read, None, None]:
    """Read items in order; while one is in use, threads read those after it.

    Args:
        items: What to read; taken as reading goes on, so it may be endless.
        read: Called in a thread. What it raises is raised here, at its item's turn.
        n_ahead: Items that are read, or being read, before they are asked for.
        n_threads: Threads that read.

    Yields:
        What `read` returned for each item; none of it is kept here.
    """
    with ThreadPoolExecutor(n_threads, thread_name_prefix="read") as pool:
        waiting: deque[Future[Read]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > n_ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
