"""Images that are yet to be opened: files, frames of videos, members of archives; their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
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


def expand_braces(name: str) -> Iterator[str]:
    """Yield the names that ranges {00..99} and choices {a,b} stand for, in order.

    Raises:
        InputError: What stands in braces is neither.
    """
    found = re.search(r"\{([^{}]*)\}", name)
    if found is None:
        yield name
        return
    first, dots, last = found[1].partition("..")
    if not dots:
        words = found[1].split(",")
    elif first.isdecimal() and last.isdecimal():
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        words = [str(number).zfill(width) for number in range(int(first), int(last) + 1)]
    else:
        raise InputError(
            f"{name}: {{{found[1]}}} is no range",
            fix="shards/{00000..00099}.tar, in quotation marks",
        )
    for word in words:
        yield from expand_braces(name[: found.start()] + word + name[found.end() :])
