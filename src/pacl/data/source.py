"""One image that is yet to be opened: a file, a frame of a video, a member of an archive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from PIL import Image

from pacl.errors import InputError

IMAGE_SUFFIXES = frozenset(
    [".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)


@dataclass(frozen=True)
class Source:
    """One image that is yet to be opened, wherever it lies."""

    name: str
    """What results and messages call it; of a file the path."""
    open: Callable[[], Image.Image]
    """Returns the image upright in RGB, or raises an InputError."""
    sequence: str | None = None
    """The name of the video that it is a frame of, whose frames follow each other."""


def failing(name: str, error: InputError) -> Source:
    """Return a source that cannot be opened, to stand where its images would."""

    def fail() -> NoReturn:
        raise error

    return Source(name, fail)
