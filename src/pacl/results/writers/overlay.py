"""The label map laid over its image in the colours of the names, which stand in their regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image, ImageDraw

from pacl.results.palette import class_colours
from pacl.results.writers.lettering import (
    LegendEntry,
    add_legend,
    drawable,
    find_room,
    legend_height_px,
    name_px,
    search_step,
    shorten_legend,
)
from pacl.results.writers.strips import count_labels, row_strips
from pacl.results.writers.writer import Result

_SIZES = (1.6, 1.25, 1.0, 0.8)
"""Sizes of a name to try, the largest first, as shares of the size that suits the image."""
_SMALLEST_PX = 10
_MANY = 100
"""Of more classes, not all can have colours of their own that are told apart."""
_INK, _HALO = (255, 255, 255), (20, 20, 24)

_Name = tuple[int, int, str, int]
"""Centre x and y, words, size of the text."""


def overlay_of(result: Result) -> Image.Image:
    """Return the overlay that is written to a file."""
    return result.overlay()


def draw_overlay(
    image: Image.Image,
    label_map: Int[np.ndarray, "H W"],
    labels: Sequence[str],
    *,
    opacity: float = 0.5,
    legend: bool = True,
) -> Image.Image:
    """Tint every labelled pixel in its class's colour, with thin outlines, and name the regions.

    Args:
        image: An image of the label map's size.
        label_map: 0 = none (the image shows through), k = labels[k-1].
        labels: One name per class.
        opacity: 0 = only the image, 1 = only the colours.
        legend: Whether the classes seen are named: in their regions where the name fits, else
            along the lower edge, on two lines at most, with the share of the image that each
            covers.

    Returns:
        An RGB image of the same size.
    """
    counts = count_labels(label_map, len(labels))[1:]
    colours = _choose_colours(labels, np.flatnonzero(counts))
    colour_of = np.concatenate([np.zeros((1, 3), np.uint8), colours])
    line_px = max(1, min(image.size) // 500)
    drawn = Image.new("RGB", image.size)
    for rows in row_strips(label_map):  # of a large image each array of floats is a gigabyte
        found = label_map[rows]
        tint = colour_of[found].astype(np.float32)
        photograph = np.asarray(image.crop((0, rows.start, image.width, rows.stop)).convert("RGB"))
        alpha = np.where(found > 0, opacity, 0.0)[..., None].astype(np.float32)
        tinted = photograph * (1 - alpha) + tint * alpha
        and_below = label_map[rows.start : rows.stop + line_px]
        lines = class_borders(and_below, width_px=line_px)[: len(found)] & (found > 0)
        tinted[lines] = 0.7 * tint[lines]
        drawn.paste(Image.fromarray(tinted.round().astype(np.uint8)), (0, rows.start))
    return _write_names(drawn, label_map, labels, colours.tolist(), counts) if legend else drawn


def _choose_colours(labels: Sequence[str], seen: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "C 3"]:
    """Choose the colours of all classes; of very many, of those in the image, which must differ."""
    if len(labels) <= _MANY:
        return class_colours(labels)
    colours = np.zeros((len(labels), 3), dtype=np.uint8)
    colours[seen] = class_colours([labels[int(k)] for k in seen])
    return colours


def class_borders(
    label_map: Int[np.ndarray, "H W"], *, width_px: int = 1
) -> Bool[np.ndarray, "H W"]:
    """Mark the pixels within a width of a right or lower neighbour with another label."""
    borders = np.zeros(label_map.shape, dtype=bool)
    for step in range(1, width_px + 1):
        borders[:, :-step] |= label_map[:, :-step] != label_map[:, step:]
        borders[:-step] |= label_map[:-step] != label_map[step:]
    return borders


def _write_names(
    image: Image.Image,
    label_map: Int[np.ndarray, "H W"],
    labels: Sequence[str],
    colours: Sequence[Sequence[int]],
    counts: Int[np.ndarray, " C"],
) -> Image.Image:
    """Write each name into its region; those that do not fit form the legend, which hides none."""
    seen = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k] > 0]
    entries: list[LegendEntry] = [
        (
            f"{labels[k]}  {_percent(int(counts[k]) / label_map.size)}",
            (colours[k][0], colours[k][1], colours[k][2]),
        )
        for k in seen
    ]
    height = image.height
    while True:
        names = [_place(label_map, k + 1, height, labels[k]) for k in seen]
        unnamed = [entry for entry, name in zip(entries, names, strict=True) if name is None]
        rest = shorten_legend(unnamed, image.size)
        top = image.height - legend_height_px(rest, image.size)
        if top >= height:
            break
        height = top
    pen = ImageDraw.Draw(image)
    for name in names:
        if name is not None:
            x, y, words, text_px = name
            words, font = drawable(words, text_px)
            halo = max(1, text_px // 9)
            pen.text((x, y), words, _INK, font, "mm", stroke_width=halo, stroke_fill=_HALO)
    return add_legend(image, rest)


def _place(label_map: Int[np.ndarray, "H W"], number: int, height: int, label: str) -> _Name | None:
    """Find the largest name that fits into a label's region above the legend."""
    step = search_step(label_map.shape)  # of a large image the whole region would be as large
    region = label_map[::step, ::step] == number
    region[-(-height // step) :] = False
    for share in _SIZES:
        text_px = max(_SMALLEST_PX, round(share * name_px(label_map.shape[::-1])))
        words, font = drawable(label, text_px)
        box = round(font.getlength(words)) + text_px // 2, round(1.3 * text_px)
        centre = find_room(region, box, step=step)
        if centre is not None:
            return (*centre, words, text_px)
    return None


def _percent(share: float) -> str:
    return "<1%" if share < 0.01 else f"{share:.0%}"
