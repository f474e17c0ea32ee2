"""Measuring fairly: one clock per device, spread, peak memory, the machine's ceilings."""

from __future__ import annotations

import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    facts = {
        "device": _gpu_name(device) if device.type == "cuda" else _cpu_name(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    if device.type == "cuda":
        import triton

        facts |= {"cuda": torch.version.cuda, "triton": triton.__version__}
    return facts


def _gpu_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def now_s(device: torch.device) -> float:
    """CPU time of this process (its one thread) on a CPU, which others cannot stretch by waiting;
    wall-clock time after all work is done on a GPU.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return {
        "median": statistics.median(ordered),
        "low": ordered[quarter],
        "high": ordered[-1 - quarter],
        "rounds": len(ordered),
    }


def ceilings(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """The rates of a large matrix product (FLOP/s) and of a copy (bytes/s), in this very run."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    source = torch.empty(
        2**30 if device.type == "cuda" else 2**26, dtype=torch.uint8, device=device
    )
    target = torch.empty_like(source)
    return {
        "matmul_flops": 2 * size**3 / _shortest_s(lambda: a @ a, device),
        "copy_bytes": 2 * source.numel() / _shortest_s(lambda: target.copy_(source), device),
    }


def _shortest_s(action: Callable[[], Any], device: torch.device, n: int = 10) -> float:
    times = []
    for _ in range(n):
        start = now_s(device)
        action()
        times.append(now_s(device) - start)
    return min(times[2:])


MIN_ROUNDS = 3


def repeat(
    one_round: Callable[[int], dict[str, float]], settings: Any, *, title: str
) -> dict[str, list[float]]:
    """Seconds of interleaved variants, round by round.

    Args:
        one_round: Runs every variant once on inputs of a seed; returns the seconds of each.
        settings: Has rounds, warmup (rounds before the clock) and case_s, seconds after which no
            further round starts once there are MIN_ROUNDS.
        title: For the progress on standard error.
    """
    times: dict[str, list[float]] = {}
    started = time.perf_counter()
    for turn in range(settings.warmup + settings.rounds):
        seconds = one_round(turn)
        if turn < settings.warmup:
            started = time.perf_counter()
        else:
            for name, value in seconds.items():
                times.setdefault(name, []).append(value)
        print(f"{title}: round {turn + 1}", file=sys.stderr)
        is_late = time.perf_counter() - started > settings.case_s
        if is_late and turn + 1 >= settings.warmup + MIN_ROUNDS:
            break
    return times


class PeakMemory:
    """Bytes that a block adds at its worst to what was there before.

    On a CPU the resident size of the process, so one process measures one thing, after a small
    warm-up; Linux only. On a GPU what torch's allocator gave out.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # restarts VmHWM
            self._before = _resident_bytes("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
        else:
            peak = _resident_bytes("VmHWM")
        self.bytes = peak - self._before


def _resident_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def write_report(path: Path, report: dict[str, Any], markdown: str) -> None:
    """The numbers as JSON at ``path``, and the table beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown)
