"""Frozen patch tokens, computed once: the encoder never changes, so training need not repeat it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

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
from pacl.runtime.threads import map_on_threads
from pacl.training.token_store import (
    DTYPES,
    MappedTokens,
    TokenBatch,
    TokenSettings,
    TokenStore,
)

IMAGES_OF_A_THREAD = 8
"""Images that each thread encodes together on a CPU, whatever the number of threads."""

OnProgress = Callable[[int, int], None]
"""Called with the numbers of images done and to do."""


class TokenCache:
    """The patch tokens of many images, by row number.

    Args:
        take: Returns the tokens (B, T, E) of rows, in half precision.
        n_images: Number of rows.
        grid: Rows and columns of the patch grid; T is their product.
        unreadable: Row number -> why its image could not be read. The tokens of such a row are
            meaningless: use `readable` rows only.
    """

    def __init__(
        self,
        take: Callable[[np.ndarray], Float[Tensor, "B T E"]],
        n_images: int,
        *,
        grid: tuple[int, int],
        unreadable: dict[int, str],
    ) -> None:
        self.take = take
        self.n_images = n_images
        self.grid = grid
        self.unreadable = unreadable
        self.readable = np.setdiff1d(np.arange(n_images), list(unreadable))
        if len(self.readable) == 0:
            raise InputError("none of the images can be read", why=unreadable[0])

    def __len__(self) -> int:
        return self.n_images

    def __getitem__(self, row: int) -> Float[Tensor, "T E"]:
        return self.take(np.array([row]))[0]

    def iter_batches(self, batches: Iterable[np.ndarray]) -> Iterator[Float[Tensor, "B T E"]]:
        """Yield the tokens of batches of rows, in the stored precision."""
        return map(self.take, batches)


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
    """Images that are encoded at a time; on a CPU, each thread takes up to 8 of them."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the encoder computes in."""

    def prepare(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        """Resize and normalise an image."""
        return self.tower.prepare(image, size_px=self.size_px)

    def __call__(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B T E"], tuple[int, int]]:
        """Return the tokens, on the CPU, and the rows and columns of the patch grid."""
        device = torch.device(self.device)
        at_once = IMAGES_OF_A_THREAD if device.type == "cpu" else len(images)
        encoded = list(map_on_threads(self._encode, images.split(at_once), device=device))
        with torch.autocast("cpu", enabled=False):  # under it, float16 is not joined
            return torch.cat([tokens for tokens, _ in encoded]), encoded[0][1]

    def _encode(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B T E"], tuple[int, int]]:
        images = images.to(self.device)
        is_bf16 = self.precision == "bf16"
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=is_bf16):
            tokens, grid = self.tower.encode_patches(
                images, kind=self.kind, layer=self.layer, norm=self.norm
            )
        return tokens.to("cpu", self.dtype), grid


def build_token_cache(
    encode: TokenEncoder,
    pairs: PairSource | PairStream,
    *,
    directory: Path | None,
    workers: int = 2,
    on_progress: OnProgress | None = None,
) -> TokenCache:
    """Encode images once and keep their patch tokens.

    Args:
        encode: Prepares and encodes images.
        pairs: The images, by row. Unreadable ones are noted in the cache, not fatal.
        directory: Where to keep them on disk; None keeps them in memory. Calling again with the
            same settings resumes an interrupted build, or opens the finished cache. With several
            processes each encodes a share of the images; in memory, each holds the tokens of all.
        workers: Threads that decode images.
        on_progress: Called with the numbers of images done and to do in this process.

    Returns:
        The complete cache.

    Raises:
        InputError: There are no images, none can be read, the directory holds a cache with
            other settings, or a process cannot see what the others wrote.
        EnvironmentProblem: The disk is full; what was finished is kept.
    """
    settings = _settings(encode, pairs)
    if directory is None:
        share = distributed.own_share(len(pairs))
        rows = range(share.start, share.stop)
        batches = _encode_rows(encode, pairs, rows, workers)
        whole = _collect_shares(_shown(batches, 0, len(rows), on_progress), len(pairs), share)
        tokens = whole.tokens
        return TokenCache(
            lambda rows: tokens.index_select(0, torch.from_numpy(rows)),
            len(pairs),
            grid=whole.grid,
            unreadable=whole.unreadable,
        )
    store = TokenStore(directory, settings)
    part = (distributed.rank(), distributed.world_size())
    fill_token_store(store, encode, pairs, part=part, workers=workers, on_progress=on_progress)
    distributed.wait_for_all()
    found = [store.find(number) for number in range(store.n_shards)]
    shards = [shard for shard in found if shard is not None]
    if len(shards) < len(found):
        raise InputError(
            f"process {distributed.rank()} does not find the tokens that the others wrote",
            why=f"{directory} has {len(shards):,} of {len(found):,} parts here",
            fix="give an --output that all machines share, or --cache none",
        )
    return TokenCache(
        MappedTokens(shards, encode.dtype).take,
        len(pairs),
        grid=shards[0].grid,
        unreadable={row: why for shard in shards for row, why in shard.unreadable.items()},
    )


def open_token_store(
    encode: TokenEncoder, pairs: PairSource | PairStream, directory: Path
) -> TokenStore:
    """Open the folder of a cache on disk, or begin one.

    Raises:
        InputError: There are no images, or it holds a cache with other settings.
        EnvironmentProblem: It cannot be written.
    """
    return TokenStore(directory, _settings(encode, pairs))


def fill_token_store(
    store: TokenStore,
    encode: TokenEncoder,
    pairs: PairSource | PairStream,
    *,
    part: tuple[int, int] = (0, 1),
    is_verified: bool = False,
    workers: int = 2,
    on_progress: OnProgress | None = None,
) -> None:
    """Write the shards that are missing, of a part of all.

    Args:
        store: The folder.
        encode: Prepares and encodes images.
        pairs: The images, by row.
        part: The number of this part, from 0, and the number of parts.
        is_verified: Read the shards that are there, too, and write the damaged ones again.
        workers: Threads that decode images.
        on_progress: Called with the numbers of images done and to do in this part.

    Raises:
        EnvironmentProblem: The disk is full; what was finished is kept.
    """
    numbers = range(part[0], store.n_shards, part[1])
    n_todo, n_done = sum(len(store.rows(number)) for number in numbers), 0
    for number in numbers:
        rows, shard = store.rows(number), store.find(number)
        if shard is None or (is_verified and not shard.is_sound()):
            batches = _encode_rows(encode, pairs, rows, workers)
            store.write(number, _shown(batches, n_done, n_todo, on_progress))
        elif on_progress is not None:
            on_progress(n_done + len(rows), n_todo)
        n_done += len(rows)


def _settings(encode: TokenEncoder, pairs: PairSource | PairStream) -> TokenSettings:
    names = [name for name, each in DTYPES.items() if each == encode.dtype]
    if not names:
        raise ValueError(f"dtype must be torch.float16 or torch.bfloat16, not {encode.dtype}")
    if not len(pairs):
        raise InputError("there are no images to encode")
    return TokenSettings(
        encoder=encode.tower.fingerprint,
        images=pairs.images_fingerprint,
        n_images=len(pairs),
        size_px=encode.size_px,
        kind=encode.kind,
        layer=encode.layer,
        norm=encode.norm,
        dtype=names[0],
        precision=encode.precision,
    )


def _encode_rows(
    encode: TokenEncoder, pairs: PairSource | PairStream, rows: range, workers: int
) -> Iterator[TokenBatch]:
    """Yield the tokens of batches of images; those of one that cannot be read are meaningless."""
    tower = encode.tower
    blank = torch.zeros(3, *(encode.size_px or (tower.image_size_px, tower.image_size_px)))

    def load(row: int) -> Tensor | str:
        """Return the image, or why it cannot be read."""
        try:
            return encode.prepare(pairs.open_image(row))
        except InputError as error:
            return error.what

    starts = range(0, len(rows), encode.batch_size)
    batches = [rows[start : start + encode.batch_size] for start in starts]
    for batch, loaded in prefetch(load, batches, workers=workers):
        images = torch.stack([blank if isinstance(found, str) else found for found in loaded])
        named = zip(batch, loaded, strict=True)
        why = {row: found for row, found in named if isinstance(found, str)}
        yield TokenBatch(*encode(images), why)


def _shown(
    batches: Iterator[TokenBatch], n_done: int, n_todo: int, on_progress: OnProgress | None
) -> Iterator[TokenBatch]:
    """Pass batches through, and report how many images are done."""
    for batch in batches:
        yield batch
        n_done += len(batch.tokens)
        if on_progress is not None:
            on_progress(n_done, n_todo)


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
