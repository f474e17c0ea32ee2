"""Training images as uint8 batches: decoded once if they fit in memory, else one batch ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pacl.data.pairs import PairSource
from pacl.data.prefetch import prefetch
from pacl.errors import InputError

SMALLEST_CROP = 0.7
"""Smallest share of the area that the crop augmentation keeps."""

Resize = Callable[[Image.Image], UInt8[Tensor, "3 H W"]]


class StepImages(Protocol):
    """The input of a training step by row number: decoded images, or their frozen tokens."""

    @property
    def readable(self) -> np.ndarray:
        """Rows whose image can be read, as far as is known before the first step."""
        ...

    @property
    def unreadable(self) -> dict[int, str]:
        """The other rows, and why their image cannot be read."""
        ...

    def iter_batches(self, batches: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Load batches of rows in order.

        Raises:
            InputError: A file cannot be read.
        """
        ...


class DecodedImages:
    """Decoded uint8 images of one size, by row number.

    Args:
        pairs: The source that opens the images.
        resize: Resizes an image to the common size.
        workers: Threads that decode.
        memory_gb: Decoded images up to this size (GB) are held in memory. Beyond it each batch is
            decoded when it is needed, while the step before it runs; a damaged file is then
            noticed only when its turn comes.
    """

    def __init__(
        self, pairs: PairSource, *, resize: Resize, workers: int, memory_gb: float
    ) -> None:
        self._load = lambda row: resize(pairs.open_image(row))
        self._workers = workers
        self._memory: Tensor | None = None
        self.unreadable: dict[int, str] = {}
        first = resize(Image.new("RGB", (64, 64)))
        if len(pairs) * first.numel() <= memory_gb * 1e9:
            self._memory = torch.empty(len(pairs), *first.shape, dtype=torch.uint8)
            self._fill(self._memory)
        self.readable = np.setdiff1d(np.arange(len(pairs)), list(self.unreadable))
        if len(self.readable) == 0:
            raise InputError("none of the images can be read", why=self.unreadable[0])

    def iter_batches(self, batches: Iterable[np.ndarray]) -> Iterator[UInt8[Tensor, "B 3 H W"]]:
        """See `StepImages`."""
        if self._memory is not None:
            for rows in batches:
                yield self._memory.index_select(0, torch.from_numpy(rows))
        else:
            rows_of_batches = (rows.tolist() for rows in batches)
            for _, images in prefetch(self._load, rows_of_batches, workers=self._workers):
                yield torch.stack(images)

    def _fill(self, memory: Tensor) -> None:
        def load(row: int) -> None:
            try:
                memory[row] = self._load(row)
            except InputError as error:
                self.unreadable[row] = error.what

        rows = range(len(memory))
        batches = (rows[start : start + 64] for start in range(0, len(rows), 64))
        for _ in prefetch(load, batches, workers=self._workers):
            pass


def augment_images(
    images: UInt8[Tensor, "b 3 H W"],
    kind: str,
    generator: torch.Generator,
    *,
    n_batch: int | None = None,
    share: slice = slice(None),
) -> UInt8[Tensor, "b 3 H W"]:
    """Augment a batch at random, each image independently.

    Args:
        images: The batch, or a share of it.
        kind: "none"; "flip" mirrors half of them; "crop" mirrors half of them and cuts out a
            random square of 70 to 100 % of the area, scaled back bilinearly.
        generator: Source of randomness, on the CPU. It draws for the whole batch, so that an
            image's augmentation does not depend on which process handles it.
        n_batch: Number of images in the whole batch; None: `images` is all of it.
        share: The rows of the whole batch that `images` holds.

    Returns:
        A batch of the same shape.
    """
    if kind == "none":
        return images
    n_batch = len(images) if n_batch is None else n_batch
    is_mirrored = (torch.rand(n_batch, generator=generator) < 0.5)[share]
    if kind == "flip":
        where = is_mirrored.to(images.device)[:, None, None, None]
        return torch.where(where, images.flip(-1), images)
    area = SMALLEST_CROP + (1 - SMALLEST_CROP) * torch.rand(n_batch, generator=generator)[share]
    side = area.sqrt()
    centre = (2 * torch.rand(n_batch, 2, generator=generator)[share] - 1) * (1 - side)[:, None]
    affine = torch.zeros(len(images), 2, 3)
    affine[:, 0, 0] = torch.where(is_mirrored, -side, side)
    affine[:, 1, 1] = side
    affine[:, :, 2] = centre
    grid = F.affine_grid(affine.to(images.device), list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return moved.round().clamp(0, 255).to(torch.uint8)
