"""Frozen patch tokens, computed once: the encoder never changes, so training need not repeat it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pacl.data.pairs import PairSource
from pacl.data.prefetch import prefetch
from pacl.data.stream import PairStream
from pacl.errors import InputError
from pacl.modeling.towers import VisionTower
from pacl.runtime import distributed
from pacl.training.token_store import (
    DTYPES,
    TokenBatch,
    TokenSettings,
    collect_on_disk,
)


class TokenCache:
    """The patch tokens of many images, by row number.

    Args:
        tokens: (N, T, E) in half precision, in memory or mapped from a file.
        grid: Rows and columns of the patch grid; T is their product.
        unreadable: Row number -> why its image could not be read. The tokens of such a row are
            meaningless: use `readable` rows only.
    """

    def __init__(
        self,
        tokens: Float[Tensor, "N T E"],
        *,
        grid: tuple[int, int],
        unreadable: dict[int, str],
    ) -> None:
        self.tokens = tokens
        self.grid = grid
        self.unreadable = unreadable
        self.readable = np.setdiff1d(np.arange(len(tokens)), list(unreadable))

    def __len__(self) -> int:
        return len(self.tokens)

    def iter_batches(self, batches: Iterable[np.ndarray]) -> Iterator[Float[Tensor, "B T E"]]:
        """Yield the tokens of batches of rows, in the stored precision."""
        for rows in batches:
            yield self.tokens.index_select(0, torch.from_numpy(rows))


@dataclass(frozen=True)
class TokenEncoder:
    """Turns images into tokens, in the form in which they are kept."""

    tower: VisionTower
    """The frozen encoder."""
    device: torch.device | str = "cpu"
    """Where its weights are."""
    size_px: tuple[int, int] | None = None
    """Height and width to encode at; None: the encoder's own preprocessing."""
    kind: str = "clip"
    layer: int = -1
    norm: bool = True
    dtype: torch.dtype = torch.float16
    """`torch.float16` or `torch.bfloat16`."""
    batch_size: int = 32
    """Images per call of the encoder."""
    autocast: Callable[[], AbstractContextManager] = nullcontext
    """Returns the context to encode in."""

    def prepare(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        """Resize and normalise an image."""
        return self.tower.prepare(image, size_px=self.size_px)

    def __call__(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B T E"], tuple[int, int]]:
        """Return the tokens, on the CPU, and the rows and columns of the patch grid."""
        with torch.no_grad(), self.autocast():
            tokens, grid = self.tower.encode_patches(
                images.to(self.device), kind=self.kind, layer=self.layer, norm=self.norm
            )
        return tokens.to("cpu", self.dtype), grid


def build_token_cache(
    encoder: VisionTower,
    pairs: PairSource | PairStream,
    *,
    directory: Path | None,
    device: torch.device | str = "cpu",
    size_px: tuple[int, int] | None = None,
    kind: str = "clip",
    layer: int = -1,
    norm: bool = True,
    dtype: torch.dtype = torch.float16,
    batch_size: int = 32,
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> TokenCache:
    """Encode images once and keep their patch tokens.

    Args:
        encoder: The frozen encoder.
        pairs: The images, by row. Unreadable ones are noted in the cache, not fatal.
        directory: Where to keep them on disk; None keeps them in memory. Calling again with the
            same settings resumes an interrupted build, or opens the finished cache. With several
            processes the first writes and all open the file; in memory, each encodes a share
            of the images and holds the tokens of all.
        device: Where the encoder's weights are.
        size_px: Height and width to encode at; None: the encoder's own preprocessing.
        kind, layer, norm: As in `VisionTower.encode_patches`.
        dtype: `torch.float16` or torch.bfloat16.
        batch_size: Images per call of the encoder.
        workers: Threads that decode images.
        on_progress: Called with the numbers of images done and to do in this process.

    Returns:
        The complete cache.

    Raises:
        InputError: There are no images, none can be read, the directory holds a cache with
            other settings, or another process cannot see what the first wrote.
        EnvironmentProblem: The disk is full; what was finished is kept.
    """
    if not len(pairs):
        raise InputError("there are no images to encode")
    settings = _settings(
        encoder, pairs, dtype=dtype, size_px=size_px, kind=kind, layer=layer, norm=norm
    )

    def encode(rows: range) -> Iterator[TokenBatch]:
        for images, unreadable in _iter_images(encoder, pairs, rows, size_px, batch_size, workers):
            with torch.no_grad():
                tokens, grid = encoder.encode_patches(
                    images.to(device), kind=kind, layer=layer, norm=norm
                )
            yield TokenBatch(tokens.to("cpu", dtype), grid, unreadable)

    whole = _collect(encode, settings, directory, on_progress)
    cache = TokenCache(whole.tokens, grid=whole.grid, unreadable=whole.unreadable)
    if len(cache.readable) == 0:
        raise InputError("none of the images can be read", why=cache.unreadable[0])
    return cache


def _settings(
    encoder: VisionTower, pairs: PairSource | PairStream, *, dtype: torch.dtype, **of_tokens: Any
) -> TokenSettings:
    names = [name for name, each in DTYPES.items() if each == dtype]
    if not names:
        raise ValueError(f"dtype must be torch.float16 or torch.bfloat16, not {dtype}")
    return TokenSettings(
        encoder=encoder.fingerprint,
        images=pairs.images_fingerprint,
        n_images=len(pairs),
        dtype=names[0],
        **of_tokens,
    )


def _iter_images(
    encoder: VisionTower,
    pairs: PairSource | PairStream,
    rows: range,
    size_px: tuple[int, int] | None,
    batch_size: int,
    workers: int,
) -> Iterator[tuple[Tensor, dict[int, str]]]:
    """Yield batches of images, blank where one cannot be read, and why not by row."""
    blank = torch.zeros(3, *(size_px or (encoder.image_size_px, encoder.image_size_px)))

    def load(row: int) -> Tensor | str:
        """Return the image, or why it cannot be read."""
        try:
            return encoder.prepare(pairs.open_image(row), size_px=size_px)
        except InputError as error:
            return error.what

    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    for batch, loaded in prefetch(load, batches, workers=workers):
        images = [blank if isinstance(found, str) else found for found in loaded]
        why = {
            row: found for row, found in zip(batch, loaded, strict=True) if isinstance(found, str)
        }
        yield torch.stack(images), why


def _collect(
    encode: Callable[[range], Iterator[TokenBatch]],
    settings: TokenSettings,
    directory: Path | None,
    on_progress: Callable[[int, int], None] | None,
) -> TokenBatch:
    """Collect all tokens in memory or on disk, together with the other processes."""
    n_images = settings.n_images
    share = distributed.own_share(n_images) if directory is None else slice(0, n_images)

    def iter_batches(first_row: int) -> Iterator[TokenBatch]:
        n_done = first_row - share.start
        for batch in encode(range(first_row, share.stop)):
            yield batch
            n_done += len(batch.tokens)
            if on_progress is not None:
                on_progress(n_done, share.stop - share.start)

    def refuse(first_row: int) -> Iterator[TokenBatch]:
        raise InputError(
            f"process {distributed.rank()} does not find the tokens that the first one wrote",
            why=f"{directory} has {first_row:,} of {n_images:,} images here",
            fix="give an --output that all machines share, or --cache none",
        )

    if directory is None:
        return _collect_shares(iter_batches(share.start), n_images, share)
    if distributed.rank() == 0:
        whole = collect_on_disk(iter_batches, directory, settings)
        distributed.wait_for_all()
        return whole
    distributed.wait_for_all()
    return collect_on_disk(refuse, directory, settings)


def _collect_shares(batches: Iterator[TokenBatch], n_images: int, share: slice) -> TokenBatch:
    """Collect the tokens of all images in memory; this process encodes a share of them."""
    first = next(batches)
    tokens = first.tokens.new_empty(n_images, *first.tokens.shape[1:])
    own_unreadable: dict[int, str] = {}
    row = share.start
    for batch in chain([first], batches):
        tokens[row : row + len(batch.tokens)] = batch.tokens
        row += len(batch.tokens)
        own_unreadable |= batch.unreadable
    distributed.exchange_shares(tokens)
    unreadable: dict[int, str] = {}
    for found in distributed.gather_values(own_unreadable):
        unreadable |= found
    return TokenBatch(tokens, first.grid, unreadable)
