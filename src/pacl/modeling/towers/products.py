"""How a CPU multiplies float32: by oneDNN, where that is faster and as exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch


@contextmanager
def onednn_products() -> Iterator[None]:
    """Have oneDNN in place of MKL multiply float32, on CPUs where that keeps float32's accuracy.

    Torch's setting is named "bf16" and allows rounding, but oneDNN rounds only where the CPU has
    AMX: there nothing is set.
    """
    flags = cpu_flags()
    backend = getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9
    if backend is None or "avx512f" not in flags or "amx_bf16" in flags:
        yield
        return
    before = backend.fp32_precision
    backend.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.fp32_precision = before


@cache
def cpu_flags() -> frozenset[str]:
    """The CPU's abilities as Linux names them (avx512f, amx_bf16 ...); elsewhere none."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()
