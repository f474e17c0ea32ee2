"""Frozen patch tokens, computed once: the encoder never changes, so training need not repeat it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pacl.data.images import open_image
from pacl.errors import InputError
from pacl.modeling.towers import FrozenClip
from pacl.runtime import distributed
from pacl.training.token_store import (
    DTYPES,
    TokenBatch,
    TokenSettings,
    collect_in_memory,
    collect_on_disk,
)


class TokenCache:
    """The patch tokens of many images, by row number.

    Args:
        tokens: (N, T, E) in half precision, in memory or mapped from a file.
        grid: rows and columns of the patch grid; T is their product.
        unreadable: row number -> why its image could not be read. The tokens of such a row mean
            nothing; use `readable` rows only.
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

    def take(self, rows: np.ndarray) -> Float[Tensor, "B T E"]:
        """The tokens of some rows, in that order, as they are stored."""
        return self.tokens.index_select(0, torch.from_numpy(rows))


def build_token_cache(
    encoder: FrozenClip,
    image_paths: Sequence[Path],
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
        encoder: the frozen encoder.
        image_paths: one image per row. Unreadable ones are noted in the cache, not fatal.
        directory: where to keep them on disk; None keeps them in memory. Calling again with the
            same settings goes on where an interrupted build stopped, or just opens the cache. Of
            several processes the first one writes, and all open the file; in memory, each encodes
            a share of the images and holds the tokens of all.
        device: where the encoder's weights are.
        size_px: height and width to encode at; None is the encoder's own preprocessing.
        kind, layer, norm: as in `FrozenClip.encode_patches`.
        dtype: torch.float16 or torch.bfloat16.
        batch_size: images per call of the encoder.
        workers: threads that decode images.
        on_progress: called with the images done and the images to do, of this process.

    Returns:
        the complete cache.

    Raises:
        InputError: there are no images, not one can be read, the directory holds a cache of
            other settings, or another process cannot see what the first one wrote.
        EnvironmentProblem: the disk is full; what was finished is kept.
    """
    if not image_paths:
        raise InputError("there are no images to encode")
    names = [name for name, each in DTYPES.items() if each == dtype]
    if not names:
        raise ValueError(f"dtype must be torch.float16 or torch.bfloat16, not {dtype}")
    settings = TokenSettings(
        encoder=encoder.fingerprint,
        images=_digest(image_paths),
        n_images=len(image_paths),
        size_px=size_px,
        kind=kind,
        layer=layer,
        norm=norm,
        dtype=names[0],
    )
    encode = partial(encoder.encode_patches, kind=kind, layer=layer, norm=norm)
    share = distributed.own_share(len(image_paths)) if directory is None else slice(None)

    def iter_batches(first_row: int) -> Iterator[TokenBatch]:
        pictures = _Pictures(encoder, image_paths[share], size_px)
        for rows, images, unreadable in pictures.iter_batches(first_row, batch_size, workers):
            with torch.no_grad():
                tokens, grid = encode(images.to(device))
            yield TokenBatch(tokens.to("cpu", dtype), grid, unreadable)
            if on_progress is not None:
                on_progress(rows.stop, len(pictures.paths))

    def refuse(first_row: int) -> Iterator[TokenBatch]:
        raise InputError(
            f"process {distributed.rank()} does not find the tokens that the first one wrote",
            why=f"{directory} has {first_row:,} of {len(image_paths):,} images here",
            fix="give an --output that all machines share, or --cache none",
        )

    if directory is None:
        whole = _collect_shares(iter_batches(0), len(image_paths), share)
    elif distributed.rank() == 0:
        whole = collect_on_disk(iter_batches, directory, settings)
        distributed.wait_for_all()
    else:
        distributed.wait_for_all()
        whole = collect_on_disk(refuse, directory, settings)
    cache = TokenCache(whole.tokens, grid=whole.grid, unreadable=whole.unreadable)
    if len(cache.readable) == 0:
        raise InputError("none of the images can be read", why=cache.unreadable[0])
    return cache


def _collect_shares(batches: Iterator[TokenBatch], n_images: int, share: slice) -> TokenBatch:
    """In memory, the tokens of all images, of which this process encodes a share."""
    own = collect_in_memory(batches, n_images, first_row=share.start)
    distributed.exchange_shares(own.tokens)
    unreadable = {
        share_start + row: why
        for share_start, found in distributed.gather_values((share.start, own.unreadable))
        for row, why in found.items()
    }
    return TokenBatch(own.tokens, own.grid, unreadable)


@dataclass(frozen=True)
class _Pictures:
    """Images, preprocessed in batches; a blank one stands for one that cannot be read."""

    encoder: FrozenClip
    paths: Sequence[Path]
    size_px: tuple[int, int] | None

    def iter_batches(
        self, first_row: int, batch_size: int, workers: int
    ) -> Iterator[tuple[range, Tensor, dict[int, str]]]:
        """Batches from a row on; threads prepare the next one while this one is in use."""
        n_images = len(self.paths)
        starts = range(first_row, n_images, batch_size)
        batches = [range(start, min(start + batch_size, n_images)) for start in starts]
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[list[Future[Tensor | str]]] = deque()
            for number, rows in enumerate(batches):
                for upcoming in batches[number + len(waiting) : number + 2]:
                    waiting.append([pool.submit(self._load, row) for row in upcoming])
                loaded = [future.result() for future in waiting.popleft()]
                unreadable = {
                    row: found for row, found in zip(rows, loaded, strict=True)
                    if isinstance(found, str)
                }  # fmt: skip
                own_px = self.encoder.image_size_px
                blank = torch.zeros(3, *(self.size_px or (own_px, own_px)))
                images = [blank if isinstance(found, str) else found for found in loaded]
                yield rows, torch.stack(images), unreadable

    def _load(self, row: int) -> Tensor | str:
        """The image, or why it cannot be read."""
        try:
            return self.encoder.prepare(open_image(self.paths[row]), size_px=self.size_px)
        except InputError as error:
            return error.what


def _digest(image_paths: Sequence[Path]) -> str:
    """Changes when a file is added, moved in the order, or written again; folders do not count."""
    digest = hashlib.sha256()
    for path in image_paths:
        try:
            status = path.stat()
            digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path.name}\0missing\n".encode())
    return digest.hexdigest()[:16]
