"""Colours of classes: a name keeps its colour, and names are as far apart as their number lets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float, Int, UInt8

NONE_COLOUR = (0, 0, 0)

_LIGHTNESS = (0.64, 0.74, 0.84, 0.52, 0.42)
_CHROMA = (0.21, 0.16, 0.11, 0.06)
_N_HUES = 36
_N_VIVID = 60
_DIFFERENT = 0.11
"""Distance from which two colours cannot be taken for each other."""
_FAR_ENOUGH = 0.6
"""Share of the largest distance to the colours in use that is enough where space is short."""

# What people expect of a few common words, as RGB.
_EXPECTED = {
    "sky": (120, 180, 250),
    "water": (50, 110, 220),
    "sea": (50, 110, 220),
    "river": (50, 110, 220),
    "lake": (50, 110, 220),
    "grass": (120, 200, 70),
    "tree": (40, 150, 60),
    "trees": (40, 150, 60),
    "vegetation": (40, 150, 60),
    "road": (150, 120, 170),
    "sidewalk": (235, 90, 205),
    "building": (190, 120, 80),
    "house": (190, 120, 80),
    "sand": (235, 205, 130),
    "car": (40, 70, 200),
    "person": (235, 60, 70),
    "people": (235, 60, 70),
}


def class_colours(labels: Sequence[str]) -> UInt8[np.ndarray, "C 3"]:
    """Choose the colour of each class from its name, as RGB in 0..255.

    Args:
        labels: The names, all different. Those before a name may change its colour; those after
            it do not, but for the few common words, which choose first.

    Each name has an order of preference among some hundreds of colours, by a hash, vivid ones
    first; a few common words begin with what people expect. It takes the first that differs
    clearly from the colours already taken, or, where space is short, is nearly as far from them
    as any. The distance is that of OKLab, in which equal steps look equal.
    """
    return _choose(tuple(labels)).copy()


@cache
def _candidates() -> tuple[UInt8[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Colours of all hues that screens can show, the vivid ones first: as RGB and in OKLab."""
    grid = np.array(
        [
            (light, chroma, 2 * np.pi * (hue + 0.5 * (k % 2)) / _N_HUES)
            for chroma in _CHROMA
            for k, light in enumerate(_LIGHTNESS)
            for hue in range(_N_HUES)
        ]
    )
    light, chroma, hue = grid.T
    lab = np.stack([light, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    linear = (lab @ _LAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T
    lab, linear = (each[((linear >= 0) & (linear <= 1)).all(axis=1)] for each in (lab, linear))
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (encoded * 255).round().astype(np.uint8), lab


# OKLab (B. Ottosson, 2020): from lightness and two opponent colours to cone responses, and on.
_LAB_TO_LMS = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@cache
def _choose(labels: tuple[str, ...]) -> UInt8[np.ndarray, "C 3"]:
    rgb, lab = _candidates()
    chosen = np.zeros((len(labels), 3), dtype=np.uint8)
    distance = np.full(len(rgb), np.inf)
    for k in sorted(range(len(labels)), key=lambda k: not _is_expected(labels[k])):
        label = labels[k]
        digest = hashlib.sha256(label.casefold().encode()).digest()
        if not distance.any():  # more labels than colours
            chosen[k] = np.frombuffer(digest[:3], np.uint8)
            continue
        order = _preference(label, digest)
        is_far = distance[order] >= min(_FAR_ENOUGH * distance.max(), _DIFFERENT)
        place = order[is_far.argmax()]
        chosen[k] = rgb[place]
        distance = np.minimum(distance, np.linalg.norm(lab - lab[place], axis=1))
    return chosen


def _preference(label: str, digest: bytes) -> Int[np.ndarray, " n"]:
    rgb, _ = _candidates()
    random = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    order = [random.permutation(_N_VIVID), _N_VIVID + random.permutation(len(rgb) - _N_VIVID)]
    if _is_expected(label):
        away = np.abs(rgb.astype(int) - _EXPECTED[label.casefold().split()[-1]]).sum(axis=1)
        order.insert(0, away.argsort(kind="stable")[:5])
    return np.concatenate(order)


def _is_expected(label: str) -> bool:
    return bool(label.strip()) and label.casefold().split()[-1] in _EXPECTED
