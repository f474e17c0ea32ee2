"""One file per output format, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pacl.errors import InputError
from pacl.results.writers.json import encode_json
from pacl.results.writers.npz import encode_npz
from pacl.results.writers.overlay import encode_overlay
from pacl.results.writers.png import PngWriter
from pacl.results.writers.writer import FilePerImage, Result, Writer

FORMATS: dict[str, Callable[[], Writer]] = {
    "png": PngWriter,
    "overlay": partial(FilePerImage, "_overlay.png", encode_overlay),
    "json": partial(FilePerImage, "_areas.json", encode_json),
    "npz": partial(FilePerImage, ".npz", encode_npz),
}
"""What a result can be saved as."""

ENDINGS = tuple(build().ending for build in FORMATS.values())


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

    def paths(self, stem: str) -> dict[str, Path]:
        """The files of one image, by format."""
        return {name: self._folder / (stem + each.ending) for name, each in self._writers.items()}

    def add(self, result: Result, stem: str) -> dict[str, Path]:
        """Write one image's result in every format, and return the files.

        Raises:
            InputError: A file would fall on the source image.
            EnvironmentProblem: The folder cannot be written, or the disk is full.
        """
        if result.source and Path(result.source).resolve() in {
            path.resolve() for path in self.paths(stem).values()
        }:
            raise InputError(
                f"saving would overwrite the image {result.source}", fix="choose another folder"
            )
        if not self._is_open:
            for writer in self._writers.values():
                writer.open(self._folder, result.labels)
            self._is_open = True
        return {name: writer.add(result, stem) for name, writer in self._writers.items()}

    def close(self) -> None:
        """Finish the folder, where anything was written."""
        if self._is_open:
            for writer in self._writers.values():
                writer.close()
