"""The collectives of training on several processes, with one process: NCCL's on a GPU.

    python benchmarks/collectives.py                a GPU
    python benchmarks/collectives.py --device cpu   gloo

With one process pacl skips them, so here they are called on every type that training sends, checked
and timed (median of --rounds, for 64 MiB). Writes --output (JSON).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import machine, now_s
from torch import Tensor, distributed


def gather(value: Tensor) -> Tensor:
    found = [torch.empty_like(value)]
    distributed.all_gather(found, value)
    return found[0]


def add_up(value: Tensor) -> Tensor:
    value = value.clone()
    distributed.all_reduce(value)
    return value


def send(value: Tensor) -> Tensor:
    distributed.broadcast(value.view(torch.uint8), src=0)
    return value


COLLECTIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "all_gather": gather,
    "all_reduce": add_up,
    "broadcast of bytes": send,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/collectives.json"))
    settings = parser.parse_args()
    device = torch.device(settings.device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    report: dict[str, Any] = {"machine": machine(device), "backend": backend, "rows": []}
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        meeting = f"file://{directory}/meeting"
        distributed.init_process_group(backend, init_method=meeting, rank=0, world_size=1)
        for name, collective in COLLECTIVES.items():
            for dtype in (torch.float32, torch.float64, torch.int64):
                value = torch.arange(2**26 // dtype.itemsize, device=device).to(dtype)
                assert torch.equal(collective(value), value), (name, dtype)
                times = []
                for _ in range(settings.rounds):
                    start = now_s(device)
                    collective(value)
                    times.append(now_s(device) - start)
                row = {"name": name, "dtype": str(dtype), "median_s": statistics.median(times)}
                report["rows"].append(row)
                settings.output.write_text(json.dumps(report, indent=1) + "\n")
        distributed.destroy_process_group()
    print(json.dumps(report["rows"]))


if __name__ == "__main__":
    main()
