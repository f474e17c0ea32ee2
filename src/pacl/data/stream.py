"""Pairs that are read as a run needs them: neither images nor texts are held in memory."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol

from PIL import Image

from pacl.data.order import MixedOrder, Order, WindowedOrder
from pacl.data.pairs import PairSource

_NEIGHBOURS = 4
"""Samples of a shard that are tried before the shard counts as lost."""


class PairStream(Protocol):
    """Captioned images by row number, read one by one, in an order of their own."""

    @property
    def shards(self) -> tuple[int, ...]:
        """Number of rows of each shard; rows are numbered through."""
        ...

    @property
    def order(self) -> Order:
        """The order of an epoch."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies what there is in any folder; a run resumes only with the same."""
        ...

    @property
    def images_fingerprint(self) -> str:
        """Identifies the present files: a token cache is valid for these only."""
        ...

    @property
    def n_skipped(self) -> int:
        """Number of samples that were left out from the beginning."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def open_image(self, row: int) -> Image.Image:
        """Open one image, upright RGB.

        Raises:
            InputError: It cannot be read.
        """
        ...

    def read_captions(self, row: int) -> Sequence[str]:
        """Read the captions of an image, at least one.

        Raises:
            InputError: There is none, or it cannot be read.
        """
        ...

    def name(self, row: int) -> str:
        """Return what messages call a row."""
        ...

    def summary(self) -> str:
        """What was read and what was skipped and why, one fact per line."""
        ...


def iter_stand_ins(shards: Sequence[int], row: int) -> Iterator[int]:
    """Yield the rows that may stand in for a bad one: its neighbours, then other shards'.

    Args:
        shards: Number of rows of each shard.
        row: The bad row; it is not yielded.
    """
    ends = list(accumulate(shards))
    home = bisect_right(ends, row)
    place = row - (ends[home] - shards[home])
    for turn in range(len(shards)):
        shard = (home + turn) % len(shards)
        for step in range(min(_NEIGHBOURS, shards[shard])):
            found = ends[shard] - shards[shard] + (place + step) % shards[shard]
            if found != row:
                yield found


class HeldStream:
    """A table in memory as a stream, to be mixed with others.

    Args:
        pairs: The table's pairs.
    """

    def __init__(self, pairs: PairSource) -> None:
        self._pairs = pairs
        self.shards = (len(pairs),)
        self.order = WindowedOrder(self.shards)
        self.fingerprint, self.n_skipped = pairs.fingerprint, pairs.n_skipped

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def images_fingerprint(self) -> str:
        """See `PairStream`."""
        return self._pairs.images_fingerprint

    def open_image(self, row: int) -> Image.Image:
        """See `PairStream`."""
        return self._pairs.open_image(row)

    def read_captions(self, row: int) -> Sequence[str]:
        """See `PairStream`."""
        return self._pairs.captions[row]

    def name(self, row: int) -> str:
        """See `PairStream`."""
        return f"image {row} of a table"

    def summary(self) -> str:
        """See `PairStream`."""
        return self._pairs.summary()


class MixedStream:
    """Several streams as one, each as often as its weight says.

    Args:
        streams: The streams; their rows are numbered through.
        weights: Passes through each per epoch.
    """

    def __init__(self, streams: Sequence[PairStream], weights: Sequence[float]) -> None:
        self._streams, self._weights = streams, weights
        self.shards = tuple(n for stream in streams for n in stream.shards)
        self.order = MixedOrder([stream.order for stream in streams], weights)
        self.n_skipped = sum(stream.n_skipped for stream in streams)
        self._ends = list(accumulate(len(stream) for stream in streams))

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def fingerprint(self) -> str:
        """See `PairStream`; weights count, too."""
        return _digest([*self._weights, *(stream.fingerprint for stream in self._streams)])

    @property
    def images_fingerprint(self) -> str:
        """See `PairStream`."""
        return _digest([stream.images_fingerprint for stream in self._streams])

    def open_image(self, row: int) -> Image.Image:
        """See `PairStream`."""
        stream, own = self._find(row)
        return stream.open_image(own)

    def read_captions(self, row: int) -> Sequence[str]:
        """See `PairStream`."""
        stream, own = self._find(row)
        return stream.read_captions(own)

    def name(self, row: int) -> str:
        """See `PairStream`."""
        stream, own = self._find(row)
        return stream.name(own)

    def summary(self) -> str:
        """See `PairStream`."""
        parts = zip(self._streams, self._weights, strict=True)
        lines = [f"{weight:g} x per epoch: {stream.summary()}" for stream, weight in parts]
        return "\n".join([*lines, f"an epoch has {self.order.n_per_epoch:,} images"])

    def _find(self, row: int) -> tuple[PairStream, int]:
        number = bisect_right(self._ends, row)
        return self._streams[number], row - (self._ends[number] - len(self._streams[number]))


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
