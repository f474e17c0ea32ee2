"""Images and masks read and prepared while those before them are being worked on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from jaxtyping import Int64
from numpy import ndarray
from PIL import Image

from pacl.data.images import N_THREADS, open_image, prefetch
from pacl.datasets.segmentation.masks import MaskDataset, MaskItem
from pacl.runtime.stopwatch import Stopwatch

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Example(Generic[Prepared]):
    """An image, its truth, and what was made of it for the encoder."""

    image: Image.Image
    mask: Int64[ndarray, "H W"]
    prepared: Prepared
    seconds: dict[str, float]
    """Spent in the thread on "reading" and "preprocessing"."""


def iter_read(
    dataset: MaskDataset,
    batches: Iterable[Sequence[MaskItem]],
    prepare: Callable[[Image.Image], Prepared],
) -> Generator[list[Example[Prepared]], None, None]:
    """Read batches in order; while one is being used, threads read the next.

    Args:
        dataset: Provides the masks.
        batches: Indices of its items, batch by batch; two batches are held at once.
        prepare: Applied to each image, in the thread too.

    Raises:
        InputError: An image or a mask cannot be read, when its batch's turn comes.
    """

    def read(item: MaskItem) -> Example[Prepared]:
        watch = Stopwatch()
        with watch.time("reading"):
            image, mask = open_image(item.image_path), dataset.read_mask(item)
        with watch.time("preprocessing"):
            prepared = prepare(image)
        return Example(image, mask, prepared, watch.seconds)

    for _, examples in prefetch(read, batches, workers=N_THREADS):
        yield examples
