"""Frozen patch tokens in memory, each image encoded in the step that first needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pacl.data.pairs import PairSource
from pacl.data.prefetch import prefetch
from pacl.errors import InputError
from pacl.training.token_cache import TokenEncoder

_CHECKED_AT_ONCE = 64


class GrowingTokens:
    """Tokens of many images by row number, filled during the first epoch.

    A run starts as soon as it knows which images can be read, and has the weights of one that
    encoded all images beforehand. Each image is encoded once.

    Args:
        encode: Prepares and encodes images.
        pairs: The images, by row.
        workers: Threads that decode images.
        on_progress: Called with the numbers of images checked and to check.

    Raises:
        InputError: None of the images can be read.
    """

    def __init__(
        self,
        encode: TokenEncoder,
        pairs: PairSource,
        *,
        workers: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._encode, self._pairs, self._workers = encode, pairs, workers
        self._tokens: Tensor | None = None
        self._is_there = np.zeros(len(pairs), dtype=bool)
        self.unreadable: dict[int, str] = {}
        self._check(on_progress)
        self.readable = np.setdiff1d(np.arange(len(pairs)), list(self.unreadable))
        if len(self.readable) == 0:
            raise InputError("none of the images can be read", why=self.unreadable[0])

    def iter_batches(self, batches: Iterable[np.ndarray]) -> Iterator[Float[Tensor, "B T E"]]:
        """Yield the tokens of batches of rows, in the stored precision.

        Raises:
            InputError: A file has become unreadable since it was checked.
        """
        waiting: list[np.ndarray] = []
        is_drawn = self._is_there.copy()

        def missing() -> Iterator[list[int]]:
            for rows in batches:
                new = np.unique(rows[~is_drawn[rows]])
                is_drawn[new] = True
                waiting.append(rows)
                yield new.tolist()

        for new, images in prefetch(self._load, missing(), workers=self._workers):
            self._add(np.array(new, dtype=np.int64), images)
            assert self._tokens is not None
            yield self._tokens.index_select(0, torch.from_numpy(waiting.pop(0)))

    def _load(self, row: int) -> Tensor:
        return self._encode.prepare(self._pairs.open_image(row))

    def _add(self, rows: np.ndarray, images: list[Tensor]) -> None:
        at_once = self._encode.batch_size
        for start in range(0, len(rows), at_once):
            found = self._encode(torch.stack(images[start : start + at_once]))[0]
            if self._tokens is None:
                self._tokens = found.new_empty(len(self._pairs), *found.shape[1:])
            chosen = rows[start : start + at_once]
            self._tokens[torch.from_numpy(chosen)] = found
            self._is_there[chosen] = True

    def _check(self, on_progress: Callable[[int, int], None] | None) -> None:
        def why_not(row: int) -> str:
            try:
                self._pairs.check_image(row)
            except InputError as error:
                return error.what
            return ""

        n = len(self._pairs)
        batches = [range(k, min(k + _CHECKED_AT_ONCE, n)) for k in range(0, n, _CHECKED_AT_ONCE)]
        for rows, found in prefetch(why_not, batches, workers=self._workers):
            reasons = zip(rows, found, strict=True)
            self.unreadable |= {row: why for row, why in reasons if why}
            if on_progress is not None:
                on_progress(rows[-1] + 1, n)
