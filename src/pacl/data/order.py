"""The order in which a run goes through its data: a pure function of seed and epoch.

Shards are permuted, and samples are permuted within windows of some shards, so that reads stay
near each other and an epoch's order is never held: only that of two windows is. Nothing keeps a
position: any part of any epoch is computed from its numbers, on any number of processes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from jaxtyping import Int64

SHARDS_PER_WINDOW = 8
"""Shards whose samples are shuffled with each other."""
_BLOCK = 2**16
"""About so many positions among which several sources are mixed, each in proportion."""


def random_stream(seed: int, purpose: str, step: int) -> np.random.Generator:
    """Return a random generator that depends on (seed, purpose, step) and on nothing else."""
    return np.random.default_rng((seed, zlib.crc32(purpose.encode()), step))


class Order(Protocol):
    """An order of rows for every epoch."""

    @property
    def n_per_epoch(self) -> int:
        """Rows of an epoch."""
        ...

    def rows(self, seed: int, epoch: int, start: int, stop: int) -> Int64[np.ndarray, " n"]:
        """Return the rows at positions `start` to `stop` of an epoch, all below `n_per_epoch`."""
        ...


class WindowedOrder:
    """Every row once per epoch, shuffled shard by shard and within windows of shards.

    Args:
        sizes: Number of rows of each shard; rows are counted through all shards.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self._starts = np.concatenate([[0], self._sizes.cumsum()])
        self._shards = lru_cache(maxsize=2)(self._draw_shards)
        self._window = lru_cache(maxsize=2)(self._draw_window)

    @property
    def n_per_epoch(self) -> int:
        """Number of all rows."""
        return int(self._starts[-1])

    def rows(self, seed: int, epoch: int, start: int, stop: int) -> Int64[np.ndarray, " n"]:
        """See `Order`."""
        _, ends = self._shards(seed, epoch)
        parts = [np.empty(0, dtype=np.int64)]
        for window in range(int(np.searchsorted(ends, start, side="right")), len(ends)):
            first = int(ends[window - 1]) if window else 0
            if first >= stop:
                break
            drawn = self._window(seed, epoch, window)
            parts.append(drawn[max(0, start - first) : stop - first])
        return np.concatenate(parts)

    def _draw_shards(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the order of the shards, and the position at which each window ends."""
        shards = random_stream(seed, "shards", epoch).permutation(len(self._sizes))
        ends = self._sizes[shards].cumsum()
        last = np.arange(SHARDS_PER_WINDOW - 1, len(shards) + SHARDS_PER_WINDOW - 1)
        return shards, ends[np.unique(np.minimum(last[::SHARDS_PER_WINDOW], len(shards) - 1))]

    def _draw_window(self, seed: int, epoch: int, window: int) -> np.ndarray:
        shards, _ = self._shards(seed, epoch)
        chosen = shards[window * SHARDS_PER_WINDOW : (window + 1) * SHARDS_PER_WINDOW]
        rows = [np.arange(int(self._starts[k]), int(self._starts[k + 1])) for k in chosen]
        return random_stream(seed, f"window {window}", epoch).permutation(np.concatenate(rows))


class MixedOrder:
    """Several sources in one epoch, each as often as its weight says.

    A source of weight 2 is seen twice per epoch, one of weight 0.5 in every second epoch: each
    source goes through passes of its own, which do not end with the epoch.

    Args:
        orders: The order of each source, its rows counted from 0.
        weights: Passes per epoch.
    """

    def __init__(self, orders: Sequence[Order], weights: Sequence[float]) -> None:
        self._orders = orders
        sizes = [order.n_per_epoch for order in orders]
        self._offsets = np.concatenate([[0], np.cumsum(sizes)])
        counts = [max(1, round(n * weight)) for n, weight in zip(sizes, weights, strict=True)]
        self._counts = np.array(counts, dtype=np.int64)

    @property
    def n_per_epoch(self) -> int:
        """Rows of an epoch, repeated ones counted."""
        return int(self._counts.sum())

    def rows(self, seed: int, epoch: int, start: int, stop: int) -> Int64[np.ndarray, " n"]:
        """See `Order`; rows are counted through all sources."""
        parts = [np.empty(0, dtype=np.int64)]
        stop = min(stop, self.n_per_epoch)
        block = start * self._n_blocks // self.n_per_epoch  # or one that follows
        while (first := int(self._taken(block).sum())) < stop:
            drawn = self._block(seed, epoch, block)
            parts.append(drawn[max(0, start - first) : stop - first])
            block += 1
        return np.concatenate(parts)

    @property
    def _n_blocks(self) -> int:
        return -(-self.n_per_epoch // _BLOCK)

    def _block(self, seed: int, epoch: int, block: int) -> np.ndarray:
        before, after = self._taken(block), self._taken(block + 1)
        drawn = [
            offset + self._of_source(source, seed, int(epoch * count + lo), int(epoch * count + hi))
            for source, (offset, count, lo, hi) in enumerate(
                zip(self._offsets[:-1], self._counts, before, after, strict=True)
            )
        ]
        return random_stream(seed, f"mixture {block}", epoch).permutation(np.concatenate(drawn))

    def _taken(self, block: int) -> np.ndarray:
        """Return how many rows of each source lie before a block: its share, rounded down."""
        return block * self._counts // self._n_blocks

    def _of_source(self, source: int, seed: int, start: int, stop: int) -> np.ndarray:
        """Return rows of a source at positions counted through all its passes."""
        order, parts = self._orders[source], [np.empty(0, dtype=np.int64)]
        n = order.n_per_epoch
        while start < stop:
            number, position = divmod(start, n)
            end = min(n, position + stop - start)
            parts.append(order.rows(seed, number, position, end))
            start += end - position
        return np.concatenate(parts)
