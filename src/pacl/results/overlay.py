"""The label map laid over its picture, with a legend below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int
from PIL import Image, ImageDraw, ImageFont

from pacl.results.palette import class_colours

_PAPER = (250, 250, 248)
_INK = (40, 40, 44)

LegendEntry = tuple[str, tuple[int, int, int]]
"""The words of one entry, and the RGB colour of its swatch."""


def draw_overlay(
    image: Image.Image,
    label_map: Int[np.ndarray, "H W"],
    labels: Sequence[str],
    *,
    opacity: float = 0.6,
    legend: bool = True,
) -> Image.Image:
    """Picture with every labelled pixel tinted in its class's colour and a line between classes.

    Args:
        image: of the label map's size.
        labels: one name per class.
        label_map: 0 = none (the picture shows through), k = labels[k-1].
        opacity: 0 = only the picture, 1 = only the colours.
        legend: put the classes seen, with their share of the picture, on a strip below it.

    Returns: an RGB picture as wide as image or wider; the image's own pixels begin at (0, 0).
    """
    colours = class_colours(len(labels))
    tinted = np.asarray(image.convert("RGB"))
    tint = np.concatenate([np.zeros((1, 3), np.uint8), colours])[label_map]
    alpha = np.where(label_map > 0, opacity, 0.0)[..., None].astype(np.float32)
    tinted = tinted * (1 - alpha) + tint * alpha
    tinted[class_borders(label_map)] *= 0.45
    picture = Image.fromarray(tinted.round().astype(np.uint8))
    if not legend:
        return picture
    counts = np.bincount(label_map.ravel(), minlength=len(labels) + 1)[1:]
    seen = [k for k in np.argsort(-counts, kind="stable") if counts[k] > 0]
    entries: list[LegendEntry] = [
        (f"{labels[k]}  {_percent(int(counts[k]) / label_map.size)}", tuple(colours[k].tolist()))
        for k in seen
    ]
    return add_legend(picture, entries)


def class_borders(label_map: Int[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """True where the pixel to the right or below holds another label."""
    borders = np.zeros(label_map.shape, dtype=bool)
    borders[:, :-1] |= label_map[:, :-1] != label_map[:, 1:]
    borders[:-1] |= label_map[:-1] != label_map[1:]
    return borders


def add_legend(picture: Image.Image, entries: Sequence[LegendEntry]) -> Image.Image:
    """Picture with a strip of colour swatches and words below it, wrapped to its width."""
    text_px = int(np.clip(min(picture.size) // 24, 12, 48))
    font = ImageFont.load_default(text_px)
    gap, line_px = text_px // 2, round(text_px * 1.6)
    widths = [text_px + gap + round(font.getlength(words)) + 2 * gap for words, _ in entries]
    strip_width = max([picture.width, *(width + gap for width in widths)])
    places, x, line = [], gap, 0
    for width in widths:
        if x > gap and x + width > strip_width:
            x, line = gap, line + 1
        places.append((x, picture.height + gap + line * line_px))
        x += width
    height = picture.height + 2 * gap + (line + 1) * line_px
    canvas = Image.new("RGB", (strip_width, height), _PAPER)
    canvas.paste(picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for (words, colour), (left, top) in zip(entries, places, strict=True):
        middle = top + line_px // 2
        box = (left, middle - text_px // 2, left + text_px, middle + text_px // 2)
        pen.rounded_rectangle(box, radius=max(2, text_px // 5), fill=colour)
        pen.text((left + text_px + gap, middle), words, fill=_INK, font=font, anchor="lm")
    return canvas


def _percent(share: float) -> str:
    return "<1%" if share < 0.01 else f"{share:.0%}"
