"""Opening pictures and masks from disk, whatever form they come in, or saying why not."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from PIL import Image, ImageOps, UnidentifiedImageError

from pacl.errors import InputError

PIXELS_MAX = 89_478_485
"""Largest picture opened, in pixels: 20,000 x 4,473. Pillow's own limit, 256 MiB of RGB."""

# What Pillow's decoders raise on damaged files, found by reading files cut at every length.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    ZeroDivisionError,
    struct.error,
)


def open_image(source: str | Path | bytes) -> Image.Image:
    """Open a picture as 8-bit RGB, upright.

    Args:
        source: a file, or the bytes of one. Any format that Pillow reads: CMYK, 16-bit and grey
            are converted, EXIF orientation is applied, transparency is laid over white, of an
            animation the first frame is taken.

    Returns:
        a loaded RGB picture of the size that a viewer would show.

    Raises:
        InputError: the file is missing, empty, truncated, no picture, of floating-point pixels or
            larger than `PIXELS_MAX`.
    """
    name = _name(source)
    picture = _upright(_decode(source), name)
    if picture.mode.startswith("I"):
        return _from_16_bit(picture, name)
    if picture.mode == "F":
        raise InputError(
            f"{name} has floating-point pixels",
            why="their range is not known",
            fix="save it with 8 or 16 bits per channel",
        )
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def open_mask(source: str | Path | bytes) -> Int64[np.ndarray, "H W"]:
    """Open a mask of class ids, one per pixel.

    Args:
        source: a file, or the bytes of one: palette (the index is the id) or grey of 1, 8 or 16
            bits.

    Returns:
        the ids as they are in the file.

    Raises:
        InputError: as `open_image`, or the mask holds colours, or it is a JPEG (whose compression
            changes ids).
    """
    name = _name(source)
    picture = _decode(source)
    if picture.format == "JPEG":
        raise InputError(
            f"mask {name} is a JPEG",
            why="its compression changes pixel values, so class ids are lost",
            fix="export the masks again as PNG",
        )
    if picture.mode not in ("1", "L", "P") and not picture.mode.startswith("I"):
        raise InputError(
            f"mask {name} holds colours, not class ids",
            why=f"its pixels are {picture.mode}; one class id per pixel is needed",
            fix="save it as an 8-bit grey or palette PNG whose pixel values are the ids",
        )
    return np.asarray(_upright(picture, name)).astype(np.int64)


def read_size(source: str | Path) -> tuple[int, int]:
    """Height and width in pixels that `open_image` would give, from the file's header alone.

    Raises:
        InputError: the file is missing, empty or no picture.
    """
    with _open(source) as picture:
        width, height = picture.size
        is_turned = picture.getexif().get(_EXIF_ORIENTATION, 1) in _EXIF_QUARTER_TURNS
    return (width, height) if is_turned else (height, width)


_EXIF_ORIENTATION = 0x0112
_EXIF_QUARTER_TURNS = (5, 6, 7, 8)


def _name(source: str | Path | bytes) -> str:
    return "the given bytes" if isinstance(source, bytes) else str(source)


def _open(source: str | Path | bytes) -> Image.Image:
    """Read the header, with every refusal that needs no pixels."""
    name = _name(source)
    try:
        picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except FileNotFoundError:
        raise InputError(f"image not found: {name}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name) from None
    except UnidentifiedImageError:
        if (len(source) if isinstance(source, bytes) else Path(source).stat().st_size) == 0:
            raise InputError(f"{name} is empty (0 bytes)") from None
        raise InputError(
            f"{name} is not an image", why="its content is of no format that Pillow reads"
        ) from None
    except _DECODE_ERRORS as error:
        raise InputError(f"cannot read {name}", why=str(error)) from error
    if picture.width * picture.height > PIXELS_MAX:
        picture.close()
        raise _too_large(name)
    return picture


def _decode(source: str | Path | bytes) -> Image.Image:
    """Read the pixels too; the file is closed afterwards."""
    picture = _open(source)
    try:
        picture.load()
    except _DECODE_ERRORS as error:
        picture.close()
        raise InputError(f"{_name(source)} is truncated or damaged", why=str(error)) from error
    return picture


def _too_large(name: str) -> InputError:
    return InputError(
        f"{name} is too large",
        why=f"more than {PIXELS_MAX:,} pixels",
        fix="scale it down or cut it into tiles first",
    )


def _upright(picture: Image.Image, name: str) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except _DECODE_ERRORS as error:
        raise InputError(f"{name} has damaged EXIF data", why=str(error)) from error


def _from_16_bit(picture: Image.Image, name: str) -> Image.Image:
    """Grey of 16 bits to RGB; Pillow's own conversion would clip everything above 255 to white."""
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{name} has 32-bit pixels", fix="save it with 8 or 16 bits per channel")
    return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
