"""Training images as uint8 batches: decoded once where they fit in memory, else a batch ahead."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pacl.data.images import open_image
from pacl.errors import InputError

SMALLEST_CROP = 0.7
"""Smallest share of the area that the crop augmentation keeps."""


class PictureSource:
    """Square uint8 pictures by row number.

    Args:
        paths: One image file per row.
        size_px: Side of the pictures in pixels.
        is_cropped: Whether the short side is scaled and the middle cut out, as CLIP does; else
            the whole image is squeezed into the square.
        workers: Threads that decode.
        memory_gb: Decoded pictures up to this size (GB) are held in memory. Beyond it each batch is
            decoded when asked for, while the step before it runs.

    ``unreadable`` maps rows to why their file cannot be read, as far as that shows while decoding
    into memory, and ``readable`` holds the other rows. Without memory a damaged file shows only
    when its turn comes (InputError).
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        size_px: int,
        is_cropped: bool,
        workers: int,
        memory_gb: float,
    ) -> None:
        self._pool = ThreadPoolExecutor(workers)
        self._load = lambda row: load_picture(paths[row], size_px, is_cropped=is_cropped)
        self._ahead: dict[bytes, list[Future[Tensor]]] = {}
        self._memory: Tensor | None = None
        self.unreadable: dict[int, str] = {}
        if len(paths) * 3 * size_px**2 <= memory_gb * 1e9:
            self._memory = torch.empty(len(paths), 3, size_px, size_px, dtype=torch.uint8)
            list(self._pool.map(partial(self._fill, self._memory), range(len(paths))))
        self.readable = np.setdiff1d(np.arange(len(paths)), list(self.unreadable))
        if len(self.readable) == 0:
            raise InputError("none of the images can be read", why=self.unreadable[0])

    def take(
        self, rows: np.ndarray, upcoming: np.ndarray | None = None
    ) -> UInt8[Tensor, "B 3 size_px size_px"]:
        """The pictures of some rows; those of ``upcoming`` are decoded in the background.

        Raises:
            InputError: A file cannot be read.
        """
        if self._memory is not None:
            return self._memory.index_select(0, torch.from_numpy(rows))
        waiting = self._ahead.pop(rows.tobytes(), None) or self._start(rows)
        self._ahead = {} if upcoming is None else {upcoming.tobytes(): self._start(upcoming)}
        return torch.stack([future.result() for future in waiting])

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _start(self, rows: np.ndarray) -> list[Future[Tensor]]:
        return [self._pool.submit(self._load, row) for row in rows]

    def _fill(self, memory: Tensor, row: int) -> None:
        try:
            memory[row] = self._load(row)
        except InputError as error:
            self.unreadable[row] = error.what


def load_picture(
    path: Path, size_px: int, *, is_cropped: bool
) -> UInt8[Tensor, "3 size_px size_px"]:
    """Open an image as a square; see ``PictureSource``.

    Raises:
        InputError: The file cannot be read as an image.
    """
    image = open_image(path)
    if is_cropped and image.width != image.height:
        short = min(image.size)
        width, height = (size_px * side // short for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - size_px) // 2, (height - size_px) // 2
        image = image.crop((left, top, left + size_px, top + size_px))
    elif image.size != (size_px, size_px):
        image = image.resize((size_px, size_px), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def augment_pictures(
    pictures: UInt8[Tensor, "b 3 H W"],
    kind: str,
    generator: torch.Generator,
    *,
    n_batch: int | None = None,
    share: slice = slice(None),
) -> UInt8[Tensor, "b 3 H W"]:
    """Vary a batch at random, each picture by itself.

    Args:
        pictures: The batch, or a share of it.
        kind: "none"; "flip" mirrors half of them; "crop" mirrors half of them and cuts out a
            random square of 70 to 100 % of the area, scaled back bilinearly.
        generator: Source of randomness, on the CPU. It is asked for the whole batch, so that a
            picture's variation does not depend on who gets it.
        n_batch: Pictures of the whole batch; None: these are all.
        share: Which of them these are.

    Returns:
        A batch of the same shape.
    """
    if kind == "none":
        return pictures
    n_batch = len(pictures) if n_batch is None else n_batch
    is_mirrored = (torch.rand(n_batch, generator=generator) < 0.5)[share]
    if kind == "flip":
        where = is_mirrored.to(pictures.device)[:, None, None, None]
        return torch.where(where, pictures.flip(-1), pictures)
    area = SMALLEST_CROP + (1 - SMALLEST_CROP) * torch.rand(n_batch, generator=generator)[share]
    side = area.sqrt()
    centre = (2 * torch.rand(n_batch, 2, generator=generator)[share] - 1) * (1 - side)[:, None]
    affine = torch.zeros(len(pictures), 2, 3)
    affine[:, 0, 0] = torch.where(is_mirrored, -side, side)
    affine[:, 1, 1] = side
    affine[:, :, 2] = centre
    grid = F.affine_grid(affine.to(pictures.device), list(pictures.shape), align_corners=False)
    moved = F.grid_sample(pictures.float(), grid, padding_mode="border", align_corners=False)
    return moved.round().clamp(0, 255).to(torch.uint8)
