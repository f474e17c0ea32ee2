"""How the process's memory allocator treats what is freed."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

FREED_MEMORY_KEPT = 2**29
"""Bytes."""


def keep_freed_memory() -> None:
    """Let glibc keep up to half a GiB of freed memory, where the process runs on glibc.

    By default it returns every large buffer to the system, and each step of training pays for
    fetching its pages again: a third of its time (docs/log.md).
    """
    if not sys.platform.startswith("linux"):
        return
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    with suppress(OSError, AttributeError):  # another C library
        allocator = ctypes.CDLL("libc.so.6")
        allocator.mallopt(m_trim_threshold, FREED_MEMORY_KEPT)
        allocator.mallopt(m_mmap_threshold, FREED_MEMORY_KEPT)
