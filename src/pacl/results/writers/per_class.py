"""A folder per image with a PNG per class: masks, or heat maps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pacl.results.writers.png import encode_png
from pacl.results.writers.writer import Result
from pacl.runtime.files import replace_directory

_NAME_MAX = 60


class FilePerClass:
    """Writes NAME/STEM/003_car.png and so on: the number of the label, then its words.

    Args:
        name: The format, and the folder it makes.
        draw: Yields the numbers of labels, from 1, and their images.
    """

    def __init__(
        self, name: str, draw: Callable[[Result], Iterator[tuple[int, Image.Image]]]
    ) -> None:
        self._name, self._draw = name, draw
        self._folder = Path()

    def mark(self, stem: str) -> str:
        """Return the image's folder."""
        return f"{self._name}/{stem}"

    def open(self, folder: Path, labels: Sequence[str]) -> None:
        """Note the folder; it is made with the first image."""
        self._folder = folder

    def add(self, result: Result, stem: str) -> Path:
        """Write the image's folder, whole or not at all."""

        def write(directory: Path) -> None:
            for number, image in self._draw(result):
                words = re.sub(r"[^\w-]+", "-", result.labels[number - 1])[:_NAME_MAX].strip("-")
                (directory / f"{number:03d}_{words}.png").write_bytes(encode_png(image))

        path = self._folder / self.mark(stem)
        replace_directory(path, write)
        return path

    def close(self) -> None:
        """Do nothing: no file stands for the whole folder."""


def draw_masks(result: Result) -> Iterator[tuple[int, Image.Image]]:
    """Yield a mask for each label that is in the image: 255 where it is, else 0."""
    for number in np.unique(result.label_map[result.label_map > 0]).tolist():
        yield number, Image.fromarray((result.label_map == number).astype(np.uint8) * 255)


def draw_heatmaps(result: Result) -> Iterator[tuple[int, Image.Image]]:
    """Yield the heat map of every label that competed in the image."""
    for number, label in enumerate(result.labels, start=1):
        if result.candidates is None or number - 1 in result.candidates:
            yield number, result.heatmap(label)
