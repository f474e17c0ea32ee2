"""One file per output format, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pacl.errors import InputError
from pacl.results.writers.coco import CocoWriter
from pacl.results.writers.cvat import CvatWriter
from pacl.results.writers.dataset import LIGHTLY, ULTRALYTICS, DatasetWriter
from pacl.results.writers.json import encode_json
from pacl.results.writers.label_studio import LabelStudioWriter
from pacl.results.writers.npz import encode_npz
from pacl.results.writers.overlay import overlay_of
from pacl.results.writers.panoptic import PanopticWriter
from pacl.results.writers.per_class import FilePerClass, draw_heatmaps, draw_masks
from pacl.results.writers.png import PngWriter
from pacl.results.writers.writer import FilePerImage, Result, Writer

FORMATS: dict[str, Callable[[], Writer]] = {
    "png": PngWriter,
    "overlay": partial(FilePerImage, "_overlay.png", overlay_of),
    "json": partial(FilePerImage, "_areas.json", encode_json),
    "npz": partial(FilePerImage, ".npz", encode_npz),
    "masks": partial(FilePerClass, "masks", draw_masks),
    "heatmaps": partial(FilePerClass, "heatmaps", draw_heatmaps),
    "coco": CocoWriter,
    "coco-polygons": partial(CocoWriter, use_polygons=True),
    "panoptic": PanopticWriter,
    "cvat": CvatWriter,
    "label-studio": LabelStudioWriter,
    "label-studio-brush": partial(LabelStudioWriter, use_brush=True),
    "ultralytics": partial(DatasetWriter, ULTRALYTICS),
    "lightly": partial(DatasetWriter, LIGHTLY),
}
"""What a result can be saved as."""


class Writers:
    """Several formats, written together into one folder.

    Args:
        folder: Made with the first file.
        formats: Names of `FORMATS`, one or more.

    Raises:
        InputError: A format is unknown, or there is none.
    """

    def __init__(self, folder: Path, formats: Sequence[str]) -> None:
        unknown = [name for name in formats if name not in FORMATS]
        if unknown or not formats:
            raise InputError(
                f"unknown format {unknown[0]!r}" if unknown else "no format given",
                fix=f"choose from: {', '.join(FORMATS)}",
            )
        self._folder = folder
        self._writers = {name: FORMATS[name]() for name in formats}
        self._is_open = False

    def open(self, labels: Sequence[str]) -> None:
        """Begin or continue the folder, once; `add` does it where it was not done.

        Raises:
            InputError: A format cannot hold such labels.
            EnvironmentProblem: The folder cannot be written.
        """
        if not self._is_open:
            for writer in self._writers.values():
                writer.open(self._folder, labels)
            self._is_open = True

    def marks(self, stem: str) -> dict[str, Path]:
        """Return what shows that an image is done, by format."""
        return {name: self._folder / each.mark(stem) for name, each in self._writers.items()}

    def add(self, result: Result, stem: str) -> dict[str, Path]:
        """Write one image's result in every format, and return the files.

        Raises:
            InputError: A file would fall on the source image.
            EnvironmentProblem: The folder cannot be written, or the disk is full.
        """
        if result.source and Path(result.source).resolve() in {
            path.resolve() for path in self.marks(stem).values()
        }:
            raise InputError(
                f"saving would overwrite the image {result.source}", fix="choose another folder"
            )
        self.open(result.labels)
        return {name: writer.add(result, stem) for name, writer in self._writers.items()}

    def close(self) -> None:
        """Finish the folder, where it was opened."""
        if self._is_open:
            for writer in self._writers.values():
                writer.close()
