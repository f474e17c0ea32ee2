"""The things of the picture book, each a painter of one figure standing at (x, y)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pacl.datasets.storybook.paint import Canvas, Colour, jitter, shade

#: paint(canvas, rng, x of the middle, y of the foot, height, main colour, class id)
Painter = Callable[[Canvas, np.random.Generator, float, float, float, Colour, int], None]

_TRUNK: Colour = (116, 78, 48)
_SKIN: tuple[Colour, ...] = ((246, 208, 174), (214, 160, 116), (150, 100, 66))


def _sun(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, _: Colour, k: int):
    r, gold = h / 2, (255, 216, 70)
    for angle in np.arange(0, 2 * np.pi, np.pi / 6) + rng.uniform(0, 0.5):
        tip = (x + 1.5 * r * np.cos(angle), y - r + 1.5 * r * np.sin(angle))
        left = (x + r * np.cos(angle - 0.2), y - r + r * np.sin(angle - 0.2))
        right = (x + r * np.cos(angle + 0.2), y - r + r * np.sin(angle + 0.2))
        c.polygon([tip, left, right], (255, 190, 50), k)
    c.disc(x, y - r, r, r, gold, k)
    c.disc(x, y - r, 0.72 * r, 0.72 * r, (255, 232, 120))


def _moon(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, _: Colour, k: int):
    r, pale = h / 2, (236, 234, 214)
    c.disc(x, y - r, r, r, pale, k)
    for dx, dy, size in ((-0.35, -0.25, 0.24), (0.3, 0.1, 0.3), (-0.1, 0.45, 0.18)):
        c.disc(x + dx * r, y - r + dy * r, size * r, size * r, shade(pale, 0.84))


def _tree(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, _: Colour, k: int):
    leaf = jitter(rng, (44, 116, 52), 9)
    c.polygon(
        [
            (x - 0.07 * h, y),
            (x - 0.04 * h, y - 0.5 * h),
            (x + 0.04 * h, y - 0.5 * h),
            (x + 0.07 * h, y),
        ],
        _TRUNK,
        k,
    )
    crown = [(-0.2, 0.48, 0.2), (0.2, 0.5, 0.2), (0.0, 0.72, 0.27), (0.0, 0.5, 0.22)]
    for dx, up, r in crown:
        c.disc(x + dx * h, y - up * h, r * h, r * h, leaf, k)
    for _spot in range(26):
        dx, up, r = crown[int(rng.integers(4))]
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.75) * r
        px, py = x + (dx + far * np.cos(angle)) * h, y - (up + far * np.sin(angle)) * h
        c.disc(px, py, 0.03 * h, 0.024 * h, shade(leaf, 1.35 if rng.random() < 0.5 else 0.72))


def _pine(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, _: Colour, k: int):
    needle = jitter(rng, (22, 84, 78), 7)
    c.box(x - 0.035 * h, y - 0.2 * h, x + 0.035 * h, y, _TRUNK, k)
    for foot, top, half in ((0.14, 0.55, 0.27), (0.36, 0.78, 0.21), (0.58, 1.0, 0.15)):
        c.polygon(
            [(x - half * h, y - foot * h), (x, y - top * h), (x + half * h, y - foot * h)],
            needle,
            k,
        )
        for side in np.linspace(-0.8, 0.8, 5):
            end = (x + side * half * h, y - (foot + 0.02) * h)
            c.line([(x, y - (top - 0.08) * h), end], 0.006, shade(needle, 0.62))
        c.polygon(
            [(x - half * h, y - foot * h), (x, y - top * h), (x - 0.4 * half * h, y - foot * h)],
            shade(needle, 1.3),
        )


def _bush(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, _: Colour, k: int):
    leaf = jitter(rng, (98, 128, 44), 8)
    for dx, r in ((-0.5, 0.42), (0.5, 0.42), (0.0, 0.56)):
        c.pie(x + dx * h, y, r * h * 1.3, 180, 360, leaf, k)
    for _berry in range(16):
        dx, up = rng.uniform(-0.75, 0.75), rng.uniform(0.08, 0.45)
        c.disc(x + dx * h, y - up * h, 0.05 * h, 0.05 * h, (196, 36, 72))


def _flower(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, col: Colour, k: int):
    stem = (58, 138, 62)
    c.line([(x, y), (x, y - 0.62 * h)], 0.07 * h, stem, k)
    for side in (-1, 1):
        c.disc(x + side * 0.15 * h, y - 0.2 * h, 0.15 * h, 0.07 * h, stem, k)
    for angle in np.arange(0, 2 * np.pi, np.pi / 3) + rng.uniform(0, 1):
        px, py = x + 0.2 * h * np.cos(angle), y - 0.7 * h + 0.2 * h * np.sin(angle)
        c.disc(px, py, 0.17 * h, 0.17 * h, col, k)
        tip = (x + 0.3 * h * np.cos(angle), y - 0.7 * h + 0.3 * h * np.sin(angle))
        c.line([(x, y - 0.7 * h), tip], 0.03 * h, (110, 70, 30))
    c.disc(x, y - 0.7 * h, 0.14 * h, 0.14 * h, (110, 70, 30), k)
    for dx, dy in ((-0.06, -0.04), (0.06, -0.04), (0.0, 0.07), (0.0, -0.09)):
        c.disc(x + dx * h, y + (dy - 0.7) * h, 0.02 * h, 0.02 * h, (246, 214, 90))


def _house(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, col: Colour, k: int):
    half, eave = rng.uniform(0.42, 0.55) * h, y - 0.58 * h
    c.box(x - half, eave, x + half, y, col, k)
    for row in np.arange(0.06, 0.58, 0.1):
        c.line([(x - half, y - row * h), (x + half, y - row * h)], 0.011, shade(col, 0.6))
    c.box(x + 0.5 * half, y - 0.98 * h, x + 0.72 * half, y - 0.62 * h, (120, 84, 74), k)
    roof = [(x - 1.15 * half, eave), (x, y - h), (x + 1.15 * half, eave)]
    c.polygon(roof, jitter(rng, (104, 60, 52), 10), k)
    c.box(x - 0.1 * h, y - 0.3 * h, x + 0.1 * h, y, (84, 54, 40))
    for side in (-1, 1):
        wx, wy = x + side * 0.62 * half, y - 0.38 * h
        c.box(wx - 0.09 * h, wy - 0.09 * h, wx + 0.09 * h, wy + 0.09 * h, (250, 250, 244))
        c.box(wx - 0.065 * h, wy - 0.065 * h, wx + 0.065 * h, wy + 0.065 * h, (255, 222, 122))


def _tower(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, col: Colour, k: int):
    half, top = 0.15 * h, y - 0.8 * h
    c.box(x - half, top, x + half, y, col, k)
    mortar = (226, 222, 212) if sum(col) < 560 else (120, 112, 108)
    for row, up in enumerate(np.arange(0.02, 0.78, 0.1)):
        c.line([(x - half, y - up * h), (x + half, y - up * h)], 0.008, mortar)
        for brick in np.arange(-0.75 + 0.4 * (row % 2), 0.9, 0.8):
            px = x + brick * half
            c.line([(px, y - up * h), (px, y - (up + 0.1) * h)], 0.008, mortar)
    c.box(x - 1.3 * half, top - 0.07 * h, x + 1.3 * half, top + 0.02 * h, shade(col, 0.85), k)
    for step in (-1.0, -0.05, 0.9):
        px = x + step * 1.1 * half
        c.box(
            px - 0.25 * half, top - 0.2 * h, px + 0.35 * half, top - 0.06 * h, shade(col, 0.85), k
        )
    for up in (0.3, 0.58):
        c.pie(x, y - up * h, 0.05 * h, 180, 360, (46, 40, 52))
        c.box(x - 0.05 * h, y - up * h, x + 0.05 * h, y - (up - 0.09) * h, (46, 40, 52))


def _fence(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, _: Colour, k: int):
    wood, n_posts = jitter(rng, (178, 134, 88), 9), int(rng.integers(6, 11))
    span = 0.55 * h * n_posts
    for up in (0.35, 0.7):
        c.box(x - span / 2, y - (up + 0.12) * h, x + span / 2, y - up * h, shade(wood, 0.86), k)
    for px in np.linspace(x - span / 2, x + span / 2, n_posts):
        c.polygon(
            [
                (px - 0.15 * h, y),
                (px - 0.15 * h, y - 0.85 * h),
                (px, y - h),
                (px + 0.15 * h, y - 0.85 * h),
                (px + 0.15 * h, y),
            ],
            wood,
            k,
        )


def _car(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, col: Colour, k: int):
    half = 1.05 * h
    cabin = [(-0.62, 0.52), (-0.38, 1.0), (0.32, 1.0), (0.62, 0.52)]
    c.polygon([(x + dx * half, y - up * h) for dx, up in cabin], shade(col, 0.9), k)
    panes = [(-0.5, 0.56), (-0.32, 0.92), (0.26, 0.92), (0.48, 0.56)]
    c.polygon([(x + dx * half, y - up * h) for dx, up in panes], (190, 224, 240))
    c.box(x - 0.05 * h, y - 0.95 * h, x + 0.03 * h, y - 0.5 * h, shade(col, 0.9))
    c.box(x - half, y - 0.58 * h, x + half, y - 0.18 * h, col, k)
    c.box(x - half, y - 0.46 * h, x + half, y - 0.36 * h, (38, 36, 44))
    for window in np.arange(-0.85, 0.9, 0.28):
        c.box(
            x + (window - 0.05) * half,
            y - 0.46 * h,
            x + (window + 0.05) * half,
            y - 0.36 * h,
            (250, 250, 250),
        )
    c.disc(x + 0.93 * half, y - 0.52 * h, 0.07 * h, 0.07 * h, (255, 244, 170))
    for side in (-0.56, 0.56):
        c.disc(x + side * half, y - 0.22 * h, 0.25 * h, 0.25 * h, (34, 32, 36), k)
        c.disc(x + side * half, y - 0.22 * h, 0.12 * h, 0.12 * h, (200, 200, 206))


def _boat(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, col: Colour, k: int):
    hull = [(-0.55, 0.28), (0.55, 0.28), (0.36, 0.0), (-0.36, 0.0)]
    c.box(x - 0.02 * h, y - h, x + 0.02 * h, y - 0.26 * h, (96, 68, 48), k)
    c.polygon(
        [(x + 0.05 * h, y - 0.97 * h), (x + 0.05 * h, y - 0.34 * h), (x + 0.5 * h, y - 0.34 * h)],
        col,
        k,
    )
    c.polygon(
        [(x - 0.05 * h, y - 0.86 * h), (x - 0.05 * h, y - 0.34 * h), (x - 0.38 * h, y - 0.34 * h)],
        shade(col, 0.82),
        k,
    )
    c.polygon([(x + dx * h, y - up * h) for dx, up in hull], col, k)
    for low in np.arange(0.04, 0.56, 0.12):
        share = max(0.0, 1 - (low + 0.02) / 0.6)
        right = (x + 0.05 * h + 0.45 * h * share, y - (0.34 + low) * h)
        left = (x - 0.05 * h - 0.33 * h * max(0.0, share - 0.12), y - (0.34 + low) * h)
        c.line([(x + 0.05 * h, right[1] - 0.06 * h), right], 0.035 * h, (252, 250, 240))
        c.line([(x - 0.05 * h, left[1] - 0.06 * h), left], 0.035 * h, (252, 250, 240))
    for up in (0.22, 0.1):
        half = 0.52 - (0.24 - up) * 0.6
        c.line([(x - half * h, y - up * h), (x + half * h, y - up * h)], 0.045 * h, (112, 70, 40))


def _bird(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, col: Colour, k: int):
    side, mid = (1 if rng.random() < 0.5 else -1), y - 0.42 * h
    c.polygon(
        [
            (x - side * 0.5 * h, mid),
            (x - side * 0.95 * h, mid - 0.22 * h),
            (x - side * 0.9 * h, mid + 0.14 * h),
        ],
        shade(col, 0.75),
        k,
    )
    c.disc(x, mid, 0.58 * h, 0.36 * h, col, k)
    c.disc(x + side * 0.52 * h, mid - 0.26 * h, 0.25 * h, 0.25 * h, col, k)
    beak = [(0.72, -0.34), (1.02, -0.22), (0.72, -0.14)]
    c.polygon([(x + side * dx * h, mid + dy * h) for dx, dy in beak], (240, 150, 40), k)
    wing = [(-0.3, -0.08), (0.26, -0.1), (-0.12, -0.75)]
    c.polygon([(x + side * dx * h, mid + dy * h) for dx, dy in wing], shade(col, 0.62), k)
    for dx in np.arange(-0.4, 0.45, 0.2):
        for dy in (-0.06, 0.1):
            c.disc(x + dx * h, mid + (dy + 0.06) * h, 0.075 * h, 0.06 * h, (60, 44, 52))
            c.disc(x + dx * h, mid + dy * h, 0.075 * h, 0.06 * h, shade(col, 1.1))
    c.disc(x + side * 0.58 * h, mid - 0.32 * h, 0.06 * h, 0.06 * h, (24, 20, 24))


def _balloon(
    c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, col: Colour, k: int
):
    r, mid = 0.36 * h, y - 0.64 * h
    c.polygon(
        [(x - 0.8 * r, mid + 0.5 * r), (x + 0.8 * r, mid + 0.5 * r), (x, y - 0.12 * h)], col, k
    )
    c.disc(x, mid, r, r, col, k)
    for share, tone in ((0.8, (250, 240, 214)), (0.56, col), (0.3, (250, 240, 214)), (0.1, col)):
        c.disc(x, mid, share * r, r * 0.97, tone)
    for side in (-1, 1):
        c.line(
            [(x + side * 0.3 * r, y - 0.3 * h), (x + side * 0.07 * h, y - 0.14 * h)],
            0.006,
            (90, 64, 40),
            k,
        )
    c.box(x - 0.09 * h, y - 0.15 * h, x + 0.09 * h, y, (146, 98, 54), k)


def _person(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, col: Colour, k: int):
    skin = _SKIN[int(rng.integers(len(_SKIN)))]
    for side in (-1, 1):
        c.line(
            [(x + side * 0.07 * h, y), (x + side * 0.05 * h, y - 0.36 * h)],
            0.09 * h,
            (52, 52, 84),
            k,
        )
        hand = (x + side * 0.26 * h, y - rng.uniform(0.36, 0.6) * h)
        c.line([(x + side * 0.08 * h, y - 0.64 * h), hand], 0.07 * h, shade(col, 0.85), k)
        c.disc(*hand, 0.04 * h, 0.04 * h, skin, k)
    coat = [(-0.13, 0.7), (0.13, 0.7), (0.19, 0.27), (-0.19, 0.27)]
    c.polygon([(x + dx * h, y - up * h) for dx, up in coat], col, k)
    dot = (250, 250, 246) if sum(col) < 660 else (196, 60, 80)
    for row, up in enumerate(np.arange(0.31, 0.7, 0.09)):
        for dx in np.arange(-0.11 + 0.04 * (row % 2), 0.12, 0.085):
            c.disc(x + dx * h, y - up * h, 0.022 * h, 0.022 * h, dot)
    c.disc(x, y - 0.83 * h, 0.14 * h, 0.14 * h, skin, k)
    c.pie(x, y - 0.85 * h, 0.15 * h, 180, 360, (66, 44, 34), k)
    for side in (-1, 1):
        c.disc(x + side * 0.05 * h, y - 0.81 * h, 0.016 * h, 0.016 * h, (30, 24, 24))


def _sheep(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, _: Colour, k: int):
    side, wool = (1 if rng.random() < 0.5 else -1), jitter(rng, (240, 234, 218), 4)
    for dx in (-0.42, -0.2, 0.2, 0.42):
        c.line([(x + dx * h, y), (x + dx * h, y - 0.35 * h)], 0.08 * h, (52, 46, 48), k)
    for angle in np.arange(0, 2 * np.pi, np.pi / 5):
        px, py = x + 0.42 * h * np.cos(angle), y - 0.58 * h + 0.2 * h * np.sin(angle)
        c.disc(px, py, 0.22 * h, 0.2 * h, wool, k)
    c.disc(x, y - 0.58 * h, 0.45 * h, 0.3 * h, wool, k)
    for curl in rng.uniform(-1, 1, (12, 2)):
        px, py = x + 0.42 * h * curl[0], y - 0.58 * h + 0.24 * h * curl[1]
        c.disc(px, py, 0.05 * h, 0.04 * h, shade(wool, 0.8))
    c.disc(x + side * 0.66 * h, y - 0.68 * h, 0.17 * h, 0.21 * h, (52, 46, 48), k)


def _tent(c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, col: Colour, k: int):
    half = 0.8 * h
    c.polygon([(x - half, y), (x, y - h), (x + half, y)], col, k)
    for foot in (-0.75, -0.25, 0.25, 0.75):
        stripe = [(x, y - h), (x + (foot - 0.11) * half, y), (x + (foot + 0.11) * half, y)]
        c.polygon(stripe, (250, 244, 226))
    c.polygon([(x - 0.2 * half, y), (x, y - 0.62 * h), (x + 0.2 * half, y)], (58, 40, 44))


def _umbrella(
    c: Canvas, rng: np.random.Generator, x: float, y: float, h: float, col: Colour, k: int
):
    c.box(x - 0.022 * h, y - 0.7 * h, x + 0.022 * h, y, (150, 110, 70), k)
    c.pie(x, y - 0.5 * h, 0.5 * h, 180, 360, col, k)
    for share, tone in ((0.84, shade(col, 0.5)), (0.68, col), (0.5, shade(col, 0.5)), (0.34, col)):
        c.pie(x, y - 0.5 * h, share * 0.5 * h, 180, 360, tone)
    for px in (-0.4, -0.2, 0.0, 0.2, 0.4):
        c.disc(x + px * h, y - 0.5 * h, 0.1 * h, 0.035 * h, shade(col, 0.85), k)


PAINTERS: dict[str, Painter] = {
    "sun": _sun,
    "moon": _moon,
    "tree": _tree,
    "pine tree": _pine,
    "bush": _bush,
    "flower": _flower,
    "house": _house,
    "tower": _tower,
    "fence": _fence,
    "car": _car,
    "boat": _boat,
    "bird": _bird,
    "balloon": _balloon,
    "person": _person,
    "sheep": _sheep,
    "tent": _tent,
    "umbrella": _umbrella,
}
