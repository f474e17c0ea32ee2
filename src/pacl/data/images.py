"""Images and masks of any form, opened as one form or refused with the reason."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from PIL import Image, ImageOps, UnidentifiedImageError

from pacl.errors import InputError

PIXELS_MAX = 89_478_485
"""Largest image opened, in pixels: 20,000 x 4,473. Pillow's own limit, 256 MiB of RGB."""

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


ImageLike = str | Path | Image.Image | np.ndarray
"""A file, a PIL image, or an (H, W, 3) uint8 array."""


def read_image(image: ImageLike) -> Image.Image:
    """Return any image that a caller may hand in as upright RGB.

    Raises:
        InputError: The file is unreadable, the array is not (H, W, 3) uint8, or the range of the
            PIL image's values is unknown.
    """
    if isinstance(image, str | Path):
        return open_image(image)
    if isinstance(image, Image.Image):
        if image.mode[0] in "IF":
            raise InputError(
                f"cannot tell the range of an image of mode {image.mode}",
                fix="convert it to RGB, or pass the file's path",
            )
        return _flat_rgb(ImageOps.exif_transpose(image))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(
            "an array must be an image of shape (H, W, 3) and type uint8",
            why=f"got shape {image.shape}, type {image.dtype}",
            fix="convert it, or pass the file's path",
        )
    return Image.fromarray(image)


def open_image(
    source: str | Path | bytes, *, name: str | None = None, is_check: bool = False
) -> Image.Image:
    """Open an image as 8-bit RGB, upright.

    Args:
        source: A file, or the bytes of one. Any format that Pillow reads: CMYK, 16-bit and grey
            are converted, EXIF orientation is applied, transparency is laid over white, of an
            animation the first frame is taken.
        name: What errors call it; None: the file, or "the given bytes".
        is_check: Decode a JPEG at an eighth of its sides, in a fifth of the time: only whether
            it can be read is of interest.

    Returns:
        A loaded RGB image of the size that a viewer would show.

    Raises:
        InputError: The file is missing, empty, truncated, no image, of floating-point pixels or
            larger than `PIXELS_MAX`.
    """
    name = name or _name(source)
    image = _upright(_decode(source, name, is_check=is_check), name)
    if image.mode.startswith("I"):
        return _from_16_bit(image, name)
    if image.mode == "F":
        raise InputError(
            f"{name} has floating-point pixels",
            why="their range is not known",
            fix="save it with 8 or 16 bits per channel",
        )
    return _flat_rgb(image)


def open_mask(source: str | Path | bytes) -> Int64[np.ndarray, "H W"]:
    """Open a mask of class ids, one per pixel.

    Args:
        source: A file, or the bytes of one: palette (the index is the id) or grey of 1, 8 or 16
            bits.

    Returns:
        The ids as they are in the file.

    Raises:
        InputError: As for `open_image`, or the mask holds colours, or it is a JPEG (whose
            compression changes ids).
    """
    name = _name(source)
    image = _decode(source, name)
    if image.format == "JPEG":
        raise InputError(
            f"mask {name} is a JPEG",
            why="its compression changes pixel values, so class ids are lost",
            fix="export the masks again as PNG",
        )
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise InputError(
            f"mask {name} holds colours, not class ids",
            why=f"its pixels are {image.mode}; one class id per pixel is needed",
            fix="save it as an 8-bit grey or palette PNG whose pixel values are the ids",
        )
    return np.asarray(_upright(image, name)).astype(np.int64)


def read_size(source: str | Path) -> tuple[int, int]:
    """Read from the header alone the height and width in pixels that `open_image` would give.

    Raises:
        InputError: The file is missing, empty or no image.
    """
    with _open(source, str(source)) as image:
        width, height = image.size
        is_turned = image.getexif().get(_EXIF_ORIENTATION, 1) in _EXIF_QUARTER_TURNS
    return (width, height) if is_turned else (height, width)


_EXIF_ORIENTATION = 0x0112
_EXIF_QUARTER_TURNS = (5, 6, 7, 8)


def _name(source: str | Path | bytes) -> str:
    return "the given bytes" if isinstance(source, bytes) else str(source)


def _open(source: str | Path | bytes, name: str) -> Image.Image:
    """Read the header, with every refusal that needs no pixels."""
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
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
    if image.width * image.height > PIXELS_MAX:
        image.close()
        raise _too_large(name)
    return image


def _decode(source: str | Path | bytes, name: str, *, is_check: bool = False) -> Image.Image:
    """Read the pixels too; the file is closed afterwards."""
    image = _open(source, name)
    try:
        if is_check:
            image.draft(None, (1, 1))
        image.load()
    except _DECODE_ERRORS as error:
        image.close()
        raise InputError(f"{name} is truncated or damaged", why=str(error)) from error
    return image


def _too_large(name: str) -> InputError:
    return InputError(
        f"{name} is too large",
        why=f"more than {PIXELS_MAX:,} pixels",
        fix="scale it down or cut it into tiles first",
    )


def _upright(image: Image.Image, name: str) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DECODE_ERRORS as error:
        raise InputError(f"{name} has damaged EXIF data", why=str(error)) from error


def _flat_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB, transparency laid over white."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _from_16_bit(image: Image.Image, name: str) -> Image.Image:
    """Grey of 16 bits to RGB; Pillow's own conversion would clip everything above 255 to white."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{name} has 32-bit pixels", fix="save it with 8 or 16 bits per channel")
    return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
