"""What a format of results is: something that is opened, given result after result, and closed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from pacl.runtime.files import replacing, write_atomically


class Result(Protocol):
    """What writers read of a `pacl.results.Segmentation`, which documents each member."""

    @property
    def image(self) -> Image.Image: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def label_map(self) -> Int[np.ndarray, "H W"]: ...
    @property
    def scores(self) -> Float[np.ndarray, "H W"]: ...
    @property
    def class_scores(self) -> Float[np.ndarray, "C rows columns"]: ...
    @property
    def source(self) -> str | None: ...
    @property
    def candidates(self) -> tuple[int, ...] | None: ...
    def overlay(self) -> Image.Image: ...
    def heatmap(self, label: str) -> Image.Image: ...
    def summary(self) -> dict[str, object]: ...


class Writer(Protocol):
    """Writes results to a folder in one format: a file per image, or one file for all.

    A new format is one file of this package with a writer, and a line in `FORMATS`.
    """

    def mark(self, stem: str) -> str:
        """Return the path, within the folder, of what shows that an image is done.

        Args:
            stem: What the image's files are called.
        """
        ...

    def open(self, folder: Path, labels: Sequence[str]) -> None:
        """Begin or continue a folder of results, all of which have these labels.

        Raises:
            InputError: The format cannot hold such labels.
        """
        ...

    def add(self, result: Result, stem: str) -> Path:
        """Write one image's result, and return the file or folder that holds it."""
        ...

    def close(self) -> None:
        """Finish what stands for the whole folder: of all images in it, earlier runs' too."""
        ...


class FilePerImage:
    """A writer of one file per image that needs nothing else.

    Args:
        ending: End of each file's name.
        encode: Returns the content of a result's file, or an image, which is saved as a PNG as it
            is encoded.
    """

    def __init__(self, ending: str, encode: Callable[[Result], bytes | Image.Image]) -> None:
        self._ending = ending
        self._encode = encode
        self._folder = Path()

    def mark(self, stem: str) -> str:
        """Return the file's name."""
        return stem + self._ending

    def open(self, folder: Path, labels: Sequence[str]) -> None:
        """Note the folder; it is made with the first file."""
        self._folder = folder

    def add(self, result: Result, stem: str) -> Path:
        """Write the file, whole or not at all."""
        path = self._folder / self.mark(stem)
        content = self._encode(result)
        if isinstance(content, Image.Image):
            with replacing(path) as draft:
                content.save(draft, format="PNG")
        else:
            write_atomically(path, content)
        return path

    def close(self) -> None:
        """Do nothing: no file stands for the whole folder."""
