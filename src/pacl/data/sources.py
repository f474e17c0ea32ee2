"""Where images come from: what a user names (files, folders, patterns), as one `Source` each."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from pacl.data.images import open_image
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


Places = str | Path | Source | Iterable[str | Path | Source]
"""One or several files, folders, patterns or sources."""


def find_sources(places: Places) -> list[Source]:
    """Find the images that a user names, each once, in the order named.

    Args:
        places: One or several of: a file (taken whatever its ending); a folder (the images
            directly in it, by name); a pattern such as "photos/**/*.jpg"; a source, as it is.

    Raises:
        InputError: A place does not exist or holds no image.
    """
    if isinstance(places, str | Path | Source):
        places = [places]
    found: dict[str, Source] = {}
    for place in places:
        if isinstance(place, Source):
            found.setdefault(place.name, place)
            continue
        for path in _find_files(place):
            found.setdefault(str(path), Source(str(path), partial(open_image, path)))
    return list(found.values())


def _find_files(place: str | Path) -> Sequence[Path]:
    path = Path(place)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if _is_image(p))
        looked_for = "files ending in " + " ".join(sorted(IMAGE_SUFFIXES))
    elif path.exists():
        return [path]
    elif glob.has_magic(str(place)):
        # Path.glob takes no absolute pattern.
        matches = glob.glob(str(place), recursive=True)  # noqa: PTH207
        files = sorted(p for p in map(Path, matches) if _is_image(p))
        looked_for = "image files that match the pattern"
    else:
        raise InputError(f"no such file or folder: {place}")
    if not files:
        raise InputError(f"no images in {place}", why=f"looked for: {looked_for}")
    return files


def _is_image(path: Path) -> bool:
    is_hidden = path.name.startswith(".")
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden and path.is_file()
