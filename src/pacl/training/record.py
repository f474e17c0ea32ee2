"""What a run notes of its steps: metrics.jsonl, and the samples that could not be read."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pacl.runtime import distributed
from pacl.runtime.files import disk_problems_named, write_atomically
from pacl.training.feed import Replaced

METRICS_FILE = "metrics.jsonl"


class Record:
    """What a run notes of its steps, on disk in the first process only.

    Args:
        output: The run directory, which holds metrics.jsonl and replaced.jsonl.
        first_step: Steps done by earlier runs; their lines about later steps are dropped.
        n_steps: Steps in all.
        batch_size: Images per step, those of all processes together.
    """

    def __init__(self, output: Path, *, first_step: int, n_steps: int, batch_size: int) -> None:
        self.metrics_path = output / METRICS_FILE
        self._replaced_path = output / "replaced.jsonl"
        self._n_replaced = 0
        self._n_steps, self._batch_size = n_steps, batch_size
        self._is_first = distributed.rank() == 0
        if self._is_first:
            cut_metrics(self.metrics_path, first_step)
            cut_metrics(self._replaced_path, first_step)
        self._ends_s = deque([time.perf_counter()], maxlen=21)

    def add_replaced(self, replaced: Sequence[Replaced], *, step: int) -> None:
        """Note the samples of a step that others stand in for."""
        self._n_replaced += len(replaced)
        for each in replaced:
            self._append(self._replaced_path, {"step": step} | asdict(each))

    def time_step(self, step: int) -> tuple[float, float]:
        """Note the end of a step; return images per second over the last 20, and seconds left."""
        self._ends_s.append(time.perf_counter())
        n_images = self._batch_size * (len(self._ends_s) - 1)
        images_per_s = n_images / (self._ends_s[-1] - self._ends_s[0])
        return images_per_s, (self._n_steps - step) * self._batch_size / images_per_s

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        self._append(self.metrics_path, line)

    def notes(self) -> Iterator[str]:
        """Yield remarks for the user."""
        if self._n_replaced:
            yield (
                f"{self._n_replaced:,} samples could not be read; neighbours took their places: "
                f"{self._replaced_path}"
            )

    def _append(self, path: Path, line: dict[str, Any]) -> None:
        if not self._is_first:
            return
        with disk_problems_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def cut_metrics(path: Path, n_steps: int) -> None:
    """Drop the lines of a metrics.jsonl that are beyond ``n_steps``, or were cut by a crash."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            is_kept = json.loads(line)["step"] <= n_steps
        except ValueError:
            is_kept = False
        if is_kept:
            kept.append(line + "\n")
    write_atomically(path, "".join(kept).encode())
