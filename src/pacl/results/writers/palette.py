"""The colours of classes: fixed, so that class k looks the same in every image."""

from __future__ import annotations

import colorsys

import numpy as np
from jaxtyping import UInt8

NONE_COLOUR = (0, 0, 0)

# Ordered so that the first few, the ones most images use, are the furthest apart.
_CHOSEN = (
    (66, 135, 245),  # blue
    (245, 130, 48),  # orange
    (60, 180, 75),  # green
    (230, 45, 70),  # red
    (255, 215, 45),  # yellow
    (150, 70, 200),  # violet
    (64, 210, 220),  # cyan
    (240, 80, 200),  # magenta
    (140, 90, 45),  # brown
    (180, 230, 60),  # lime
    (0, 120, 125),  # teal
    (250, 170, 180),  # pink
    (35, 55, 140),  # navy
    (165, 215, 170),  # mint
    (125, 15, 35),  # maroon
    (205, 180, 255),  # lavender
    (110, 115, 20),  # olive
    (255, 205, 150),  # apricot
    (100, 100, 110),  # slate
    (20, 75, 35),  # forest
)
_GOLDEN_RATIO = 0.618033988749895


def class_colours(n_classes: int) -> UInt8[np.ndarray, "n_classes 3"]:
    """Choose the colours of the first n_classes classes, as RGB in 0..255.

    Colour k does not depend on n_classes. The first 20 are chosen by hand; the rest walk round
    the hue circle by the golden ratio, in three brightness levels. The first 254 are all different.
    """
    colours = np.empty((n_classes, 3), dtype=np.uint8)
    for k in range(n_classes):
        colours[k] = _CHOSEN[k] if k < len(_CHOSEN) else _walked_colour(k - len(_CHOSEN))
    return colours


def _walked_colour(step: int) -> tuple[int, int, int]:
    """Return the RGB of the step-th colour on the golden-ratio walk."""
    value = (0.95, 0.7, 0.5)[step % 3]
    saturation = (0.75, 0.5)[step // 3 % 2]
    red, green, blue = colorsys.hsv_to_rgb(step * _GOLDEN_RATIO % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
