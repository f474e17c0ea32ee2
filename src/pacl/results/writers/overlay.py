"""The label map laid over its image in the classes' fixed colours, with a legend below."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int
from PIL import Image, ImageDraw, ImageFont

from pacl.results.palette import class_colours
from pacl.results.writers.writer import Result

MIN_TEXT_PX = 8
LINE_SPACING = 1.4
_PAPER = (250, 250, 248)
_INK = (40, 40, 44)

LegendEntry = tuple[str, tuple[int, int, int]]
"""The words of one entry, and the RGB colour of its swatch."""


def encode_overlay(result: Result) -> bytes:
    """Return the overlay as the content of a PNG file."""
    buffer = io.BytesIO()
    result.overlay().save(buffer, format="PNG")
    return buffer.getvalue()


def draw_overlay(
    image: Image.Image,
    label_map: Int[np.ndarray, "H W"],
    labels: Sequence[str],
    *,
    opacity: float = 0.6,
    legend: bool = True,
) -> Image.Image:
    """Tint every labelled pixel in its class's colour, and draw a line between classes.

    Args:
        image: An image of the label map's size.
        label_map: 0 = none (the image shows through), k = labels[k-1].
        labels: One name per class.
        opacity: 0 = only the image, 1 = only the colours.
        legend: Whether the classes seen are written along the lower edge, with the share of the
            image that each covers.

    Returns:
        An RGB image of the same size.
    """
    colours = class_colours(labels)
    tinted = np.asarray(image.convert("RGB"))
    tint = np.concatenate([np.zeros((1, 3), np.uint8), colours])[label_map]
    alpha = np.where(label_map > 0, opacity, 0.0)[..., None].astype(np.float32)
    tinted = tinted * (1 - alpha) + tint * alpha
    tinted[class_borders(label_map)] *= 0.45
    image = Image.fromarray(tinted.round().astype(np.uint8))
    if not legend:
        return image
    counts = np.bincount(label_map.ravel(), minlength=len(labels) + 1)[1:]
    seen = [k for k in np.argsort(-counts, kind="stable") if counts[k] > 0]
    entries: list[LegendEntry] = [
        (f"{labels[k]}  {_percent(int(counts[k]) / label_map.size)}", tuple(colours[k].tolist()))
        for k in seen
    ]
    return add_legend(image, entries)


def class_borders(label_map: Int[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Mark the pixels whose right or lower neighbour has another label."""
    borders = np.zeros(label_map.shape, dtype=bool)
    borders[:, :-1] |= label_map[:, :-1] != label_map[:, 1:]
    borders[:-1] |= label_map[:-1] != label_map[1:]
    return borders


def add_legend(image: Image.Image, entries: Sequence[LegendEntry]) -> Image.Image:
    """Draw colour swatches and words on a pale strip over the lower edge.

    The strip takes at most a third of the image: the words shrink down to 8 px, and entries that
    still find no room are left out, the last ones first.
    """
    text_px = int(np.clip(min(image.size) // 24, 12, 48))
    lines = _lay_out(entries, image.size, text_px)
    while sum(map(len, lines)) < len(entries) and text_px > MIN_TEXT_PX:
        text_px -= 1
        lines = _lay_out(entries, image.size, text_px)
    return _draw_strip(image, lines, text_px) if lines else image.copy()


def _lay_out(
    entries: Sequence[LegendEntry], size_px: tuple[int, int], text_px: int
) -> list[list[LegendEntry]]:
    """Lay entries out on as many lines as a third of the image has room for."""
    width, height = size_px
    n_lines = (height // 3 - text_px // 2) // round(text_px * LINE_SPACING)
    return _wrap(entries, _font(text_px), width)[: max(0, n_lines)]


def _font(text_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(text_px)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow has its own, with FreeType
    return font


def _entry_px(entry: LegendEntry, font: ImageFont.FreeTypeFont) -> int:
    """Width of a swatch, its words, and the gaps around them."""
    return round(2.5 * font.size + font.getlength(entry[0]))


def _wrap(
    entries: Sequence[LegendEntry], font: ImageFont.FreeTypeFont, width: int
) -> list[list[LegendEntry]]:
    """Entries line by line, without those that are wider than a line."""
    lines: list[list[LegendEntry]] = []
    room = 0
    for entry in entries:
        entry_px = _entry_px(entry, font)
        if entry_px > width:
            continue
        if entry_px > room:
            lines.append([])
            room = width
        lines[-1].append(entry)
        room -= entry_px
    return lines


def _draw_strip(image: Image.Image, lines: list[list[LegendEntry]], text_px: int) -> Image.Image:
    font, line_px, gap = _font(text_px), round(text_px * LINE_SPACING), text_px // 4
    strip = Image.new("RGB", (image.width, len(lines) * line_px + 2 * gap), _PAPER)
    top_left = (0, image.height - strip.height)
    strip = Image.blend(image.crop((*top_left, *image.size)), strip, 0.85)
    pen = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        middle = gap + number * line_px + line_px // 2
        left = text_px // 2
        for words, colour in line:
            box = (left, middle - text_px // 2, left + text_px, middle + text_px // 2)
            pen.rounded_rectangle(box, radius=max(2, text_px // 5), fill=colour)
            pen.text((left + 1.5 * text_px, middle), words, fill=_INK, font=font, anchor="lm")
            left += _entry_px((words, colour), font)
    image = image.copy()
    image.paste(strip, top_left)
    return image


def _percent(share: float) -> str:
    return "<1%" if share < 0.01 else f"{share:.0%}"
