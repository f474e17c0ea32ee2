"""What a run notes of its steps: metrics, held-out scores, samples that could not be read."""

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
from pacl.training.config import TrainConfig
from pacl.training.feed import Replaced
from pacl.training.loggers import Loggers

METRICS_FILE = "metrics.jsonl"
HELD_OUT_FILE = "held_out.jsonl"


class Record:
    """What a run notes of its steps, on disk in the first process only.

    Args:
        config: Names the run directory, which holds metrics.jsonl, held_out.jsonl and
            replaced.jsonl, and further loggers.
        first_step: Steps done by earlier runs; their lines about later steps are dropped.
        n_steps: Steps in all.
        batch_size: Images per step, those of all processes together.

    Attributes:
        numbers: Figures of the last step, and the last held-out scores in a sentence, see
            `pacl.modeling.card.describe_numbers`.
        held_out: The lines of held_out.jsonl.
    """

    def __init__(
        self, config: TrainConfig, *, first_step: int, n_steps: int, batch_size: int
    ) -> None:
        self.metrics_path = config.output / METRICS_FILE
        self._replaced_path = config.output / "replaced.jsonl"
        self._held_out_path = config.output / HELD_OUT_FILE
        self._n_replaced = 0
        self._n_steps, self._batch_size = n_steps, batch_size
        self._log_every = config.log_every
        self._is_first = distributed.rank() == 0
        self.numbers: dict[str, Any] = {}
        self.held_out: list[dict[str, Any]] = []
        if self._is_first:
            cut_metrics(self.metrics_path, first_step)
            cut_metrics(self._replaced_path, first_step)
            # Scores of step 0 belong to this run: they are made again.
            self.held_out = cut_metrics(self._held_out_path, first_step or -1)
        if self.held_out:
            self.numbers["held_out"] = self.held_out[-1]["sentence"]
        self._loggers = Loggers(config, first_step=first_step) if self._is_first else None
        self._ends_s: deque[float] = deque(maxlen=21)

    def start_clock(self) -> None:
        """Note the beginning of the first step."""
        self._ends_s.append(time.perf_counter())

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

    def add_metrics(self, line: dict[str, Any], *, has_nouns: bool) -> None:
        """Note the figures of a step, every `log_every` steps and of the last one in files, too."""
        to_text, to_image = line["accuracy_image_to_text"], line["accuracy_text_to_image"]
        self.numbers |= {
            "batch_size": self._batch_size,
            "loss": line["loss"],
            "loss_captions": line["loss_captions"],
            "loss_nouns": line["loss_nouns"] if has_nouns else None,
            "accuracy": (to_text + to_image) / 2,
        }
        if line["step"] % self._log_every == 0 or line["step"] == self._n_steps:
            self._append(self.metrics_path, line)
            if self._loggers is not None:
                numbers = {name: value for name, value in line.items() if name != "step"}
                self._loggers.add_numbers(line["step"], numbers)

    def add_held_out(self, line: dict[str, Any]) -> None:
        """Note scores on held-out data."""
        self.held_out.append(line)
        self.numbers["held_out"] = line["sentence"]
        self._append(self._held_out_path, line)
        if self._loggers is not None:
            figures = {f"held out/{name}": value for name, value in line["figures"].items()}
            self._loggers.add_numbers(line["step"], figures)

    def add_sheet(self, step: int, path: Path) -> None:
        """Pass a sheet of probe images on to the loggers."""
        if self._loggers is not None:
            self._loggers.add_sheet(step, path)

    def close(self) -> Iterator[str]:
        """End the logging and yield remarks for the user."""
        if self._n_replaced:
            yield (
                f"{self._n_replaced:,} samples could not be read; neighbours took their places: "
                f"{self._replaced_path}"
            )
        if self._loggers is not None:
            self._loggers.close()
            yield from self._loggers.notes()

    def _append(self, path: Path, line: dict[str, Any]) -> None:
        if not self._is_first:
            return
        with disk_problems_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def cut_metrics(path: Path, n_steps: int) -> list[dict[str, Any]]:
    """Drop the lines that are beyond ``n_steps``, or were cut by a crash; return the others."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            content = json.loads(line)
            is_kept = content["step"] <= n_steps
        except ValueError:
            continue
        if is_kept:
            kept.append(content)
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
    return kept
