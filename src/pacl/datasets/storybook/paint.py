"""A canvas that paints colour and class id together, and the colours of the picture book."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

#: Colours that a thing can be named by.
COLOURS: dict[str, Colour] = {
    "red": (206, 48, 44),
    "orange": (240, 138, 36),
    "yellow": (246, 210, 62),
    "green": (64, 152, 72),
    "blue": (48, 98, 196),
    "purple": (132, 62, 164),
    "white": (242, 240, 232),
}


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor < 1) or lighter (factor > 1), clipped to 0..255."""
    red, green, blue = (min(255, max(0, round(channel * factor))) for channel in colour)
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Linear mixture: share 0 is `first`, share 1 is `second`."""
    red, green, blue = (
        round((1 - share) * a + share * b) for a, b in zip(first, second, strict=True)
    )
    return red, green, blue


def jitter(rng: np.random.Generator, colour: Colour, spread: float = 8.0) -> Colour:
    """The colour with Gaussian noise of standard deviation `spread` on each channel."""
    noisy = np.clip(np.asarray(colour) + rng.normal(0.0, spread, 3), 0, 255)
    red, green, blue = (round(float(channel)) for channel in noisy)
    return red, green, blue


class Canvas:
    """A square image and its mask, painted back to front in unit coordinates.

    Args:
        size_px: Side of the painting in pixels; the finished image is half of it.

    x runs right and y runs down, both in [0, 1]. Every call paints the colour, and the class
    id too unless `label` is None: details (windows, stripes) keep the id that lies below them,
    so they must stay inside their own thing.
    """

    def __init__(self, size_px: int) -> None:
        self.size_px = size_px
        self.rgb = Image.new("RGB", (size_px, size_px))
        self.ids = Image.new("L", (size_px, size_px), 255)
        self._paint = ImageDraw.Draw(self.rgb)
        self._mark = ImageDraw.Draw(self.ids)

    def _scale(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.size_px, y * self.size_px) for x, y in points]

    def polygon(self, points: Sequence[Point], colour: Colour, label: int | None = None) -> None:
        """A filled polygon."""
        scaled = self._scale(points)
        self._paint.polygon(scaled, fill=colour)
        if label is not None:
            self._mark.polygon(scaled, fill=label)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, colour: Colour, label: int | None = None
    ) -> None:
        """A filled rectangle with upright sides."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, label)

    def disc(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, label: int | None = None
    ) -> None:
        """A filled ellipse around (x, y)."""
        (left_top, right_bottom) = self._scale([(x - rx, y - ry), (x + rx, y + ry)])
        self._paint.ellipse([left_top, right_bottom], fill=colour)
        if label is not None:
            self._mark.ellipse([left_top, right_bottom], fill=label)

    def pie(
        self,
        x: float,
        y: float,
        radius: float,
        start: float,
        end: float,
        colour: Colour,
        label: int | None = None,
    ) -> None:
        """A sector; angles in degrees, clockwise from three o'clock."""
        (left_top, right_bottom) = self._scale([(x - radius, y - radius), (x + radius, y + radius)])
        self._paint.pieslice([left_top, right_bottom], start, end, fill=colour)
        if label is not None:
            self._mark.pieslice([left_top, right_bottom], start, end, fill=label)

    def line(
        self, points: Sequence[Point], width: float, colour: Colour, label: int | None = None
    ) -> None:
        """A stroke; `width` in unit coordinates, at least one pixel."""
        scaled, width_px = self._scale(points), max(1, round(width * self.size_px))
        self._paint.line(scaled, fill=colour, width=width_px, joint="curve")
        if label is not None:
            self._mark.line(scaled, fill=label, width=width_px)

    def region(self, points: Sequence[Point], label: int, texture: Image.Image) -> None:
        """Fill a polygon with a full-canvas texture."""
        stencil = Image.new("L", (self.size_px, self.size_px), 0)
        ImageDraw.Draw(stencil).polygon(self._scale(points), fill=255)
        self.rgb.paste(texture, mask=stencil)
        self._mark.polygon(self._scale(points), fill=label)

    def finish(
        self, rng: np.random.Generator, *, light: tuple[float, float, float], size_px: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Light, vignette and paper grain, then the image at its final size.

        Args:
            light: Gains of red, green and blue, about 1 by day and below 1 at night.
            size_px: Side of the finished image.

        Returns:
            Image (size_px, size_px, 3) uint8 and class ids (size_px, size_px) uint8.
        """
        side = (size_px, size_px)
        image = np.asarray(self.rgb.resize(side, Image.Resampling.BOX), dtype=np.float32)
        ids = np.asarray(self.ids.resize(side, Image.Resampling.NEAREST), dtype=np.uint8)
        axis = np.linspace(-1, 1, size_px, dtype=np.float32)
        vignette = 1 - 0.12 * (axis[:, None] ** 2 + axis[None, :] ** 2) / 2
        gain = np.asarray(light, dtype=np.float32) * np.float32(rng.uniform(0.92, 1.06))
        grain = rng.normal(0.0, rng.uniform(1.0, 5.0), (size_px, size_px, 1)).astype(np.float32)
        image = image * gain * vignette[:, :, None] + grain
        return np.clip(image, 0, 255).astype(np.uint8), ids
