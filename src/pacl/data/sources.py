"""From what a user hands in (files, folders, patterns, arrays) to picture files and pictures."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pacl.data.images import open_image
from pacl.errors import InputError

PICTURE_SUFFIXES = frozenset(
    [".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)


Picture = str | Path | Image.Image | np.ndarray
"""A file, a PIL image, or an (H, W, 3) uint8 array."""


def find_images(sources: str | Path | Sequence[str | Path]) -> list[Path]:
    """The picture files that sources name, each once, in the order named.

    Args:
        sources: one or several of: a file (taken whatever its ending); a folder (the pictures
            directly in it, by name); a pattern such as "photos/**/*.jpg".

    Raises:
        InputError: a source does not exist, or holds no picture.
    """
    if isinstance(sources, str | Path):
        sources = [sources]
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if _is_picture(p))
            looked_for = "files ending in " + " ".join(sorted(PICTURE_SUFFIXES))
        elif path.exists():
            files, looked_for = [path], ""
        elif glob.has_magic(str(source)):
            # Path.glob takes no absolute pattern.
            matches = glob.glob(str(source), recursive=True)  # noqa: PTH207
            files = sorted(p for p in map(Path, matches) if _is_picture(p))
            looked_for = "picture files that match the pattern"
        else:
            raise InputError(f"no such file or folder: {source}")
        if not files:
            raise InputError(f"no pictures in {source}", why=f"looked for: {looked_for}")
        found.update(dict.fromkeys(files))
    return list(found)


def read_picture(image: Picture) -> Image.Image:
    """Any picture a caller may hand in, as an upright RGB PIL image.

    Raises:
        InputError: the file is unreadable, or the array is not (H, W, 3) uint8.
    """
    if isinstance(image, str | Path):
        return open_image(image)
    if isinstance(image, Image.Image):
        return _upright_rgb(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(
            "an array must be a picture of shape (H, W, 3) and type uint8",
            why=f"got shape {image.shape}, type {image.dtype}",
            fix="convert it, or pass the file's path",
        )
    return Image.fromarray(image)


def _is_picture(path: Path) -> bool:
    is_hidden = path.name.startswith(".")
    return path.suffix.lower() in PICTURE_SUFFIXES and not is_hidden and path.is_file()


def _upright_rgb(image: Image.Image) -> Image.Image:
    """A PIL image as open_image would give it, had it come from a file."""
    if image.mode[0] in "IF":
        raise InputError(
            f"cannot tell the range of a picture of mode {image.mode}",
            fix="convert it to RGB, or pass the file's path",
        )
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
