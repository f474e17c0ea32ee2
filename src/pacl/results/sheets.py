"""Sheets of titled images, row by row."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from pacl.results.writers.lettering import (
    LegendEntry,
    add_legend,
    drawable,
    legend_height_px,
)
from pacl.runtime.files import write_atomically

Panel = tuple[str, Image.Image]
"""Title and image."""

_PAPER, _INK = (255, 255, 255), (38, 38, 42)
_CELL_PX, _GAP_PX, _TEXT_PX = 180, 8, 14
_TITLE_PX = _TEXT_PX + 8


def draw_sheet(
    rows: Sequence[Sequence[Panel]], path: Path, *, legend: Sequence[LegendEntry] = ()
) -> None:
    """Draw rows of titled images; rows may differ in length.

    Args:
        rows: Images of any shape; those of a row are scaled to one width.
        path: The PNG to write, whole or not at all.
        legend: Words and their RGB colours, below the rows.

    Raises:
        EnvironmentProblem: The disk is full or cannot be written.
    """
    cells = [[(title, _scale(image)) for title, image in row] for row in rows]
    heights = [max(image.height for _, image in row) + _TITLE_PX + _GAP_PX for row in cells]
    width = max(map(len, cells)) * (_CELL_PX + _GAP_PX) + _GAP_PX
    below = _draw_legend(legend, width)
    sheet = Image.new("RGB", (width, sum(heights) + below.height), _PAPER)
    sheet.paste(below, (0, sum(heights)))
    pen = ImageDraw.Draw(sheet)
    top = 0
    for row, height in zip(cells, heights, strict=True):
        for column, (title, image) in enumerate(row):
            left = _GAP_PX + column * (_CELL_PX + _GAP_PX)
            words, font = drawable(_shorten(title), _TEXT_PX)
            pen.text((left + _CELL_PX // 2, top + _TITLE_PX // 2 + 2), words, _INK, font, "mm")
            sheet.paste(image, (left, top + _TITLE_PX))
        top += height
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


def _draw_legend(legend: Sequence[LegendEntry], width: int) -> Image.Image:
    blank = Image.new("RGB", (width, _CELL_PX * 2), _PAPER)  # decides the size of the words
    height = legend_height_px(legend, blank.size) if legend else 0
    drawn = add_legend(blank, legend) if legend else blank
    return drawn.crop((0, blank.height - height, width, blank.height))


def _scale(image: Image.Image) -> Image.Image:
    """Scale an image to the width of a cell; small ones keep their pixels square."""
    height = max(1, round(image.height * _CELL_PX / image.width))
    is_small = image.width < _CELL_PX
    filter_ = Image.Resampling.NEAREST if is_small else Image.Resampling.BOX
    return image.convert("RGB").resize((_CELL_PX, height), filter_)


def _shorten(title: str) -> str:
    """Cut a title to what a cell is wide enough for."""
    words, font = drawable(title, _TEXT_PX)
    while words and font.getlength(words) > _CELL_PX:
        words = words.removesuffix("…")[:-1].rstrip() + "…"
    return words or title
