"""OpenCV's bilinear resizing of 8-bit images, to the bit: what mmsegmentation's protocols use.

Nothing is averaged when an image shrinks (Pillow's filters do), and OpenCV computes in fixed point:
weights are rounded to 11 bits, and bits are dropped between the two directions.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt8

_ONE = np.float32(2048)
"""Weight 1, in fixed point."""


def resize_bilinear(
    image: UInt8[np.ndarray, "h w 3"], size_px: tuple[int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """Resize an image as `cv2.resize` does by default.

    Args:
        image: RGB, or channels in any other order.
        size_px: (height, width) of the result.
    """
    top, bottom, upper, lower = _sample(image.shape[0], size_px[0], is_clamped=False)
    left, right, nearer, further = _sample(image.shape[1], size_px[1], is_clamped=True)
    values = image.astype(np.int64)
    across = (values[:, left] * nearer[:, None] + values[:, right] * further[:, None]) >> 4
    upper, lower = upper[:, None, None], lower[:, None, None]
    sums = ((upper * across[top]) >> 16) + ((lower * across[bottom]) >> 16)
    return ((sums + 2) >> 2).astype(np.uint8)


def _sample(n_old: int, n_new: int, *, is_clamped: bool) -> tuple[Int64[np.ndarray, " n"], ...]:
    """Return the two old pixels around each new one's centre, and the weights of both.

    Beyond the border both are the outermost pixel. OpenCV gives all weight to the first where
    columns are clamped, and divides it for rows, which rounds otherwise.
    """
    place = ((np.arange(n_new) + 0.5) * (n_old / n_new) - 0.5).astype(np.float32)
    if is_clamped:
        place = place.clip(0, n_old - 1)
    first = np.floor(place)
    share = place - first
    # Each weight is rounded by itself, halves to even, so the two may miss their sum by one.
    weights = (np.rint(each * _ONE).astype(np.int64) for each in (1 - share, share))
    pixels = (each.clip(0, n_old - 1).astype(np.int64) for each in (first, first + 1))
    return *pixels, *weights
