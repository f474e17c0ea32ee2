"""The stuff of the picture book: sky, clouds, mountains, hills and everything one stands on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from pacl.datasets.storybook.paint import Canvas, Colour, Point, jitter, mix, shade

Texture = Callable[[np.random.Generator, ImageDraw.ImageDraw, int], Colour]

#: Top and bottom of the sky by time of day.
SKIES: dict[str, tuple[Colour, Colour]] = {
    "day": ((88, 160, 232), (190, 224, 248)),
    "dusk": ((98, 74, 142), (252, 168, 118)),
    "night": ((14, 20, 56), (44, 58, 112)),
}
CLOUDS: dict[str, Colour] = {
    "day": (250, 250, 252),
    "dusk": (246, 196, 190),
    "night": (104, 112, 146),
}


def paint_sky(canvas: Canvas, rng: np.random.Generator, time: str, label: int) -> None:
    """A vertical gradient over the whole canvas, with stars at night."""
    top, bottom = (jitter(rng, colour, 7) for colour in SKIES[time])
    n_bands = 32
    for band in range(n_bands):
        colour = mix(top, bottom, band / (n_bands - 1))
        canvas.box(0, band / n_bands, 1, (band + 1) / n_bands, colour, label)
    if time == "night":
        for x, y, radius in rng.uniform(0, 1, (rng.integers(25, 60), 3)):
            canvas.disc(x, y, 0.002 + 0.003 * radius, 0.002 + 0.003 * radius, (250, 244, 210))


def paint_cloud(
    canvas: Canvas,
    rng: np.random.Generator,
    x: float,
    y: float,
    width: float,
    time: str,
    label: int,
) -> None:
    """Overlapping discs on a flat base, a little darker below."""
    colour = jitter(rng, CLOUDS[time], 4)
    puffs = [
        (x + width * offset, y - width * rise, width * radius)
        for offset, rise, radius in zip(
            np.linspace(-0.36, 0.36, 5),
            rng.uniform(0.0, 0.08, 5),
            np.array([0.13, 0.19, 0.23, 0.2, 0.14]) * rng.uniform(0.85, 1.15, 5),
            strict=True,
        )
    ]
    for px, py, radius in puffs:
        canvas.disc(px, py + 0.02 * width, radius * 1.05, radius * 0.8, shade(colour, 0.9), label)
    for px, py, radius in puffs:
        canvas.disc(px, py - 0.02 * width, radius * 0.95, radius * 0.7, colour, label)


def paint_mountains(
    canvas: Canvas, rng: np.random.Generator, base: float, height: float, label: int
) -> None:
    """Two to four peaks with a lit flank, a dark flank and a snow cap."""
    rock = jitter(rng, (122, 116, 138), 10)
    n_peaks = int(rng.integers(2, 5))
    for centre in rng.permutation(np.linspace(0.05, 0.95, n_peaks)):
        x, rise = centre + rng.uniform(-0.08, 0.08), height * rng.uniform(0.6, 1.0)
        half, top = rise * rng.uniform(0.75, 1.1), base - rise
        fold = x + half * rng.uniform(-0.15, 0.2)
        canvas.polygon([(x - half, base), (x, top), (x + half, base)], shade(rock, 1.15), label)
        canvas.polygon([(x, top), (x + half, base), (fold, base)], shade(rock, 0.72))
        for crack in rng.uniform(0.35, 0.9, 4):
            side = rng.choice([-1, 1])
            start = (x + side * half * crack * 0.35, top + rise * crack)
            end = (start[0] + side * 0.02, min(base, start[1] + 0.1 * rise))
            canvas.line([start, end], 0.008, shade(rock, 0.55))
        cap, jag = 0.3, half * 0.3
        canvas.polygon(
            [
                (x, top),
                (x + jag, top + rise * cap),
                (x + jag * 0.4, top + rise * cap * 0.7),
                (x, top + rise * cap * 1.1),
                (x - jag * 0.45, top + rise * cap * 0.75),
                (x - jag, top + rise * cap),
            ],
            (244, 246, 252),
        )


def paint_hills(
    canvas: Canvas, rng: np.random.Generator, base: float, height: float, label: int
) -> None:
    """One or two rounded ridges with contour stripes."""
    for ridge in range(int(rng.integers(1, 3))):
        colour = jitter(rng, (142, 170, 78), 9)
        xs = np.linspace(0, 1, 41)
        wave = 0.55 + 0.45 * np.sin(xs * rng.uniform(3.5, 8) + rng.uniform(0, 6.3))
        crest = base - height * (1 - 0.3 * ridge) * wave
        outline: list[Point] = [*zip(xs, crest, strict=True), (1.0, base), (0.0, base)]
        canvas.polygon(outline, colour, label)
        for step in range(1, 9):
            stripe = crest + 0.028 * step
            run = [(x, y) for x, y in zip(xs, stripe, strict=True) if y < base - 0.004]
            if len(run) > 1 and step % 2:
                canvas.line(run, 0.009, shade(colour, 0.8))


def _grass(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> Colour:
    colour = jitter(rng, (86, 166, 66), 9)
    draw.rectangle([0, 0, side, side], fill=colour)
    for x, y, tall, tone in rng.uniform(0, 1, (520, 4)):
        length = (0.012 + 0.022 * tall) * side
        foot = (x * side, y * side)
        tip = (foot[0] + (tall - 0.5) * 5, foot[1] - length)
        draw.line([foot, tip], fill=shade(colour, 0.7 + 0.6 * tone), width=2)
    return colour


def _field(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> Colour:
    colour = jitter(rng, (222, 178, 72), 9)
    draw.rectangle([0, 0, side, side], fill=colour)
    vanish = rng.uniform(0.2, 0.8) * side
    for foot in np.arange(-2.2, 3.2, 0.075):
        draw.line([(vanish, -0.35 * side), (foot * side, side)], fill=shade(colour, 0.78), width=4)
    for x, y in rng.uniform(0, side, (260, 2)):
        draw.line([(x, y), (x + 1, y - 6)], fill=shade(colour, 1.18), width=2)
    return colour


def _sea(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> Colour:
    colour = jitter(rng, (26, 108, 160), 8)
    draw.rectangle([0, 0, side, side], fill=colour)
    for x, y, long, tone in rng.uniform(0, 1, (190, 4)):
        left, top, width = x * side - 12, y * side, (0.05 + 0.08 * long) * side
        crest = (214, 236, 244) if tone > 0.72 else shade(colour, 0.75 + 0.6 * tone)
        draw.arc([left, top, left + width, top + 9], 190, 350, fill=crest, width=2)
    return colour


def _sand(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> Colour:
    colour = jitter(rng, (236, 214, 166), 7)
    draw.rectangle([0, 0, side, side], fill=colour)
    for x, y, tone in rng.uniform(0, 1, (620, 3)):
        px, py = x * side, y * side
        draw.ellipse([px, py, px + 2, py + 2], fill=shade(colour, 0.72 + 0.45 * tone))
    return colour


def _snow(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> Colour:
    colour = jitter(rng, (232, 238, 248), 4)
    draw.rectangle([0, 0, side, side], fill=colour)
    for x, y, wide in rng.uniform(0, 1, (26, 3)):
        left, top, width = (x - 0.1) * side, y * side, (0.12 + 0.2 * wide) * side
        draw.arc([left, top, left + width, top + 0.3 * width], 200, 340, (192, 206, 232), 3)
    return colour


def _road(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> Colour:
    colour = jitter(rng, (96, 96, 102), 6)
    draw.rectangle([0, 0, side, side], fill=colour)
    for x, y, tone in rng.uniform(0, 1, (420, 3)):
        px, py = x * side, y * side
        draw.point([(px, py), (px + 1, py)], fill=shade(colour, 0.7 + 0.6 * tone))
    return colour


def _river(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> Colour:
    colour = jitter(rng, (112, 196, 222), 7)
    draw.rectangle([0, 0, side, side], fill=colour)
    for x, y, long in rng.uniform(0, 1, (120, 3)):
        px, py, length = x * side, y * side, (0.02 + 0.05 * long) * side
        draw.line([(px, py), (px + 0.6 * length, py + length)], fill=(206, 238, 246), width=2)
    return colour


_TEXTURES: dict[str, Texture] = {
    "grass": _grass,
    "field": _field,
    "sea": _sea,
    "sand": _sand,
    "snow": _snow,
    "road": _road,
    "river": _river,
}


def paint_ground(
    canvas: Canvas, rng: np.random.Generator, name: str, outline: Sequence[Point], label: int
) -> None:
    """Fill `outline` with the texture of one of grass, field, sea, sand, snow, road, river."""
    texture = Image.new("RGB", (canvas.size_px, canvas.size_px))
    _TEXTURES[name](rng, ImageDraw.Draw(texture), canvas.size_px)
    canvas.region(outline, label, texture)


def paint_dashes(canvas: Canvas, start: Point, end: Point) -> None:
    """The white centre line of a road, in dashes that grow with nearness."""
    cuts = np.linspace(0, 1, 12)
    for first, last in zip(cuts[::2], cuts[1::2], strict=True):
        a = (
            start[0] + (end[0] - start[0]) * first**1.5,
            start[1] + (end[1] - start[1]) * first**1.5,
        )
        b = (start[0] + (end[0] - start[0]) * last**1.5, start[1] + (end[1] - start[1]) * last**1.5)
        canvas.line([a, b], 0.006 + 0.016 * first, (244, 240, 220))
