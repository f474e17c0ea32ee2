"""TensorBoard and Weights & Biases beside metrics.jsonl; whatever they do, the run goes on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pacl.errors import EnvironmentProblem
from pacl.training.config import TrainConfig

_LOG = logging.getLogger(__name__)


class Logger(Protocol):
    """A place that shows numbers and images by step."""

    def add_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log numbers of a step."""
        ...

    def add_sheet(self, step: int, path: Path) -> None:
        """Log an image of a step."""
        ...

    def close(self) -> None:
        """Write what is still held."""
        ...


class TensorBoard:
    """Event files in the run directory; those of steps that are done again are marked void."""

    def __init__(self, config: TrainConfig, first_step: int) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise EnvironmentProblem(
                "tensorboard is not installed", fix="pip install tensorboard"
            ) from error
        directory = str(config.output / "tensorboard")
        self._writer = SummaryWriter(directory, purge_step=first_step + 1)

    def add_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Logger`."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def add_sheet(self, step: int, path: Path) -> None:
        """See `Logger`."""
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image("probe", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """See `Logger`."""
        self._writer.close()


class WandB:
    """One run of Weights & Biases for a run directory, resumed with it."""

    def __init__(self, config: TrainConfig, first_step: int) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise EnvironmentProblem("wandb is not installed", fix="pip install wandb") from error
        self._image: Callable[[str], Any] = wandb.Image
        place = str(config.output.resolve()).encode()
        self._run = wandb.init(
            project="pacl",
            name=config.output.name,
            id=hashlib.sha256(place).hexdigest()[:16],
            resume="allow",
            dir=str(config.output),
            config=config.to_json(),
        )

    def add_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Logger`."""
        self._run.log(dict(numbers), step=step)

    def add_sheet(self, step: int, path: Path) -> None:
        """See `Logger`."""
        self._run.log({"probe": self._image(str(path))}, step=step)

    def close(self) -> None:
        """See `Logger`."""
        self._run.finish()


class Loggers:
    """The loggers that a run asks for; one that fails is reported once and left out from then on.

    Args:
        config: Names them.
        first_step: Steps done by earlier runs.
    """

    _KINDS: Mapping[str, Callable[[TrainConfig, int], Logger]] = {
        "tensorboard": TensorBoard,
        "wandb": WandB,
    }

    def __init__(self, config: TrainConfig, *, first_step: int) -> None:
        self._open: dict[str, Logger] = {}
        self._lost: dict[str, str] = {}
        for name in dict.fromkeys(config.log):
            self._try(name, lambda name=name: self._start(name, config, first_step))

    def add_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log numbers of a step."""
        for name, logger in list(self._open.items()):
            self._try(name, lambda logger=logger: logger.add_numbers(step, numbers))

    def add_sheet(self, step: int, path: Path) -> None:
        """Log an image of a step."""
        for name, logger in list(self._open.items()):
            self._try(name, lambda logger=logger: logger.add_sheet(step, path))

    def close(self) -> None:
        """Write what is still held."""
        for name, logger in list(self._open.items()):
            self._try(name, logger.close)

    def notes(self) -> Iterator[str]:
        """Yield which loggers failed, and why."""
        for name, why in self._lost.items():
            yield f"{name} failed, the run went on without it; metrics.jsonl is complete: {why}"

    def _start(self, name: str, config: TrainConfig, first_step: int) -> None:
        self._open[name] = self._KINDS[name](config, first_step)

    def _try(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except (Exception, SystemExit) as error:
            self._open.pop(name, None)
            self._lost[name] = " ".join(f"{type(error).__name__}: {error}".split())
            _LOG.warning("warning: %s failed, training goes on without: %s", name, error)
