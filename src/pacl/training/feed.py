"""What each step is fed with: of a table held in memory, or of a stream too large for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, tee
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pacl.data.prefetch import prefetch
from pacl.data.stream import PairStream, iter_stand_ins
from pacl.errors import InputError
from pacl.runtime import distributed
from pacl.training.batches import TextTable, count_steps_per_epoch, sample_rows
from pacl.training.images import StepImages


@dataclass(frozen=True)
class Replaced:
    """A sample that could not be read, and the one that took its place."""

    name: str
    why: str
    stand_in: str


@dataclass(frozen=True)
class Batch:
    """The input of one step."""

    rows: np.ndarray
    """The images of the whole batch, as rows of `table`."""
    table: TextTable
    """The texts of all images, or of those of this batch."""
    images: Tensor
    """Of this process's share of the batch: decoded images, or cached tokens."""
    names: Callable[[], Sequence[str]]
    """Returns the names of the batch's images, for messages."""
    replaced: Sequence[Replaced] = ()
    """Samples of the batch that could not be read."""


class Feed(Protocol):
    """The batches of a run, each a pure function of the seed and the step."""

    @property
    def share(self) -> slice:
        """The rows of every batch that this process scores."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a pass over the data."""
        ...

    def iter_batches(self, first_step: int, n_steps: int) -> Iterator[Batch]:
        """Load the batches of steps `first_step` to `n_steps` in order, one ahead of the caller."""
        ...


@dataclass(frozen=True)
class HeldFeed:
    """Batches of a table whose texts are numbered and whose unreadable images are known."""

    images: StepImages
    table: TextTable
    batch_size: int
    share: slice
    """See `Feed`."""
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """See `Feed`."""
        return count_steps_per_epoch(len(self.images.readable), self.batch_size)

    def iter_batches(self, first_step: int, n_steps: int) -> Iterator[Batch]:
        """See `Feed`."""
        n_images = len(self.images.readable)
        drawn, for_images = tee(
            sample_rows(n_images, self.batch_size, seed=self.seed, step=step)
            for step in range(first_step, n_steps)
        )
        shares = (self.images.readable[rows[self.share]] for rows in for_images)
        for rows, images in zip(drawn, self.images.iter_batches(shares), strict=True):
            yield Batch(rows, self.table, images, lambda rows=rows: self._names(rows))

    def _names(self, rows: np.ndarray) -> list[str]:
        return [f"image {row}" for row in self.images.readable[rows]]


@dataclass(frozen=True)
class _Sample:
    image: Tensor
    captions: Sequence[str]
    row: int
    replaced: Replaced | None


@dataclass(frozen=True)
class StreamFeed:
    """Batches of a stream: images and captions are read as they are needed.

    A sample that cannot be read is replaced by a neighbour, the same on any number of processes.
    """

    stream: PairStream
    load: Callable[[int], Tensor]
    """Loads the image or the cached tokens of a row; raises an InputError where it cannot."""
    number: Callable[[Sequence[Sequence[str]]], TextTable]
    """Numbers the captions and nouns of a batch."""
    batch_size: int
    share: slice
    """See `Feed`."""
    seed: int
    workers: int

    @property
    def steps_per_epoch(self) -> int:
        """See `Feed`."""
        return count_steps_per_epoch(self.stream.order.n_per_epoch, self.batch_size)

    def draw(self, step: int) -> np.ndarray:
        """Draw the rows of a step, before bad samples are replaced."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        return self.stream.order.rows(self.seed, epoch, start, start + self.batch_size)

    def iter_batches(self, first_step: int, n_steps: int) -> Iterator[Batch]:
        """See `Feed`."""
        shares = (self.draw(step)[self.share].tolist() for step in range(first_step, n_steps))
        for _, samples in prefetch(self._read, shares, workers=self.workers):
            own = [(sample.captions, sample.row, sample.replaced) for sample in samples]
            everyone = list(chain.from_iterable(distributed.gather_values(own)))
            rows = [row for _, row, _ in everyone]
            yield Batch(
                rows=np.arange(len(everyone)),
                table=self.number([captions for captions, _, _ in everyone]),
                images=torch.stack([sample.image for sample in samples]),
                names=lambda rows=rows: [self.stream.name(row) for row in rows],
                replaced=[replaced for _, _, replaced in everyone if replaced],
            )

    def _read(self, row: int) -> _Sample:
        try:
            return _Sample(self.load(row), self.stream.read_captions(row), row, None)
        except InputError as error:
            problem = error
        for other in iter_stand_ins(self.stream.shards, row):
            try:
                image, captions = self.load(other), self.stream.read_captions(other)
            except InputError:
                continue
            replaced = Replaced(self.stream.name(row), problem.what, self.stream.name(other))
            return _Sample(image, captions, other, replaced)
        raise InputError(
            f"{self.stream.name(row)} cannot be read, nor can any sample near it",
            why=str(problem),
            fix="pacl data check, then run the same command again: checkpoints are kept",
        )
