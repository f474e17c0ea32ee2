"""What scoring needs of a data set of images and masks: a folder, a benchmark, anything alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int64

from pacl.text.labels import Labels


@dataclass(frozen=True)
class MaskItem:
    """One image and its mask."""

    image_path: Path
    mask_path: Path


class MaskDataset(Protocol):
    """Images with a mask each."""

    @property
    def labels(self) -> Labels:
        """The classes; id k is `labels.names[k]`."""
        ...

    @property
    def ignore_label(self) -> int:
        """What `read_mask` puts for pixels that are not scored."""
        ...

    @property
    def items(self) -> Sequence[MaskItem]:
        """Image and mask files, in a fixed order."""
        ...

    def __len__(self) -> int:
        """Count the images."""
        ...

    def __iter__(self) -> Iterator[MaskItem]:
        """Go through the items."""
        ...

    def read_mask(self, item: MaskItem) -> Int64[np.ndarray, "H W"]:
        """The class id of each pixel, 0 to C-1, or `ignore_label`."""
        ...
