"""Words on images: fonts that have the words' script, where a name fits into a region, a legend."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw, ImageFont

LegendEntry = tuple[str, tuple[int, int, int]]
"""The words of one entry, and the RGB colour of its swatch."""

MIN_TEXT_PX = 8
LINE_SPACING = 1.4
_PAPER = (250, 250, 248)
_INK = (40, 40, 44)
_SIDE_SEARCHED = 256
"""Regions are searched for room at about this resolution."""

# Files that systems have: of many scripts, of East Asia, India, the Near East and Thailand, signs.
_FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "segoeui.ttf",
    "NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "PingFang.ttc", "msyh.ttc", "meiryo.ttc",
    "malgun.ttf", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "NotoSansDevanagari-Regular.ttf",
    "Nirmala.ttf", "NotoSansBengali-Regular.ttf", "NotoSansTamil-Regular.ttf",
    "NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf", "NotoSansThai-Regular.ttf",
    "leelawui.ttf", "NotoEmoji-Regular.ttf", "Symbola.ttf", "seguisym.ttf",
)  # fmt: skip
_NO_CHARACTER = "\U0010ffff"


def drawable(words: str, text_px: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Find a font for words.

    Args:
        words: Of any script.
        text_px: Size of the font.

    Returns:
        The words and a font that has all their characters. Where this system has none, the font
        that has the most, and the words with letters for accented ones and without what is still
        missing, or "?" where nothing is left.
    """
    path, missing = _find_font(words)
    font = load_font(path, text_px)
    kept = "".join(_plain(c, font) if c in missing else c for c in words)
    nothing_left = "?" if words.strip() else ""
    return " ".join(kept.split()) or nothing_left, font


@cache
def load_font(path: str, text_px: int) -> ImageFont.FreeTypeFont:
    """Load a font file that the system has; "": Pillow's own, which has plain Latin letters."""
    font = ImageFont.truetype(path, text_px) if path else ImageFont.load_default(text_px)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow has its own, with FreeType
    return font


@cache
def _find_font(words: str) -> tuple[str, frozenset[str]]:
    """Return the first font that lacks the fewest characters, and those characters."""
    best: tuple[str, frozenset[str]] | None = None
    for path in ("", *_FONTS):
        try:
            font = load_font(path, 16)
        except OSError:  # this system does not have it
            continue
        missing = frozenset(c for c in words if not c.isspace() and not _has(font, c))
        if best is None or len(missing) < len(best[1]):
            best = path, missing
        if not missing:
            break
    assert best is not None  # Pillow's own is there
    return best


def _plain(character: str, font: ImageFont.FreeTypeFont) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", character) if _has(font, c))


def _has(font: ImageFont.FreeTypeFont, character: str) -> bool:
    return _glyph(font, character) != _glyph(font, _NO_CHARACTER)


def _glyph(font: ImageFont.FreeTypeFont, character: str) -> bytes:
    image = Image.new("L", (32, 32))
    ImageDraw.Draw(image).text((4, 4), character, 255, font)
    return image.tobytes()


def search_step(shape: tuple[int, ...]) -> int:
    """Return which pixels of an image of (height, width) are looked at for room: every n-th."""
    return max(1, min(shape) // _SIDE_SEARCHED)


def find_room(
    coarse: Bool[np.ndarray, "h w"], size_px: tuple[int, int], *, step: int = 1
) -> tuple[int, int] | None:
    """Find where a box fits into a region, as near to its middle as it can.

    Args:
        coarse: True inside; every `step`-th row and column of the image, see `search_step`.
        size_px: Width and height of the box.
        step: See above.

    Returns:
        The centre (x, y) of the box; None where it fits nowhere.
    """
    wide, tall = (-(-side // step) + (step > 1) for side in size_px)
    height, width = coarse.shape
    if tall > height or wide > width:
        return None
    sums = np.zeros((height + 1, width + 1), dtype=np.int64)
    sums[1:, 1:] = coarse.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    inside = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    tops, lefts = np.nonzero(inside == tall * wide)
    if not len(tops):
        return None
    rows, columns = np.nonzero(coarse)
    away = (tops + tall / 2 - rows.mean() - 0.5) ** 2 + (
        lefts + wide / 2 - columns.mean() - 0.5
    ) ** 2
    k = away.argmin()
    return int((lefts[k] + wide / 2) * step), int((tops[k] + tall / 2) * step)


def add_legend(image: Image.Image, entries: Sequence[LegendEntry]) -> Image.Image:
    """Draw colour swatches and words on a pale strip over the lower edge, in the image itself.

    The strip takes at most a third of the image: the words shrink down to 8 px, and entries that
    still find no room are left out, the last ones first.
    """
    lines, text_px = _lay_out(entries, image.size)
    return _draw_strip(image, lines, text_px) if lines else image


def shorten_legend(
    entries: Sequence[LegendEntry], size_px: tuple[int, int], *, n_lines: int = 2
) -> list[LegendEntry]:
    """Leave out the last entries until the legend has few lines; one says how many are missing.

    Args:
        entries: The most important first.
        size_px: Width and height of the image.
        n_lines: The lines to keep to.
    """
    shown = list(entries)
    while len(shown) > 1 and len(_lay_out(shown, size_px)[0]) > n_lines:
        n_kept = len(shown) - 1 - (shown[-1][1] == _PAPER)
        shown = [*entries[:n_kept], (f"+{len(entries) - n_kept}", _PAPER)]
    return shown


def legend_height_px(entries: Sequence[LegendEntry], size_px: tuple[int, int]) -> int:
    """Return the height of the strip that `add_legend` draws on an image of (width, height)."""
    lines, text_px = _lay_out(entries, size_px)
    return _strip_px(len(lines), text_px) if lines else 0


def name_px(size_px: tuple[int, int]) -> int:
    """Return the size of text that suits an image of (width, height)."""
    return int(np.clip(min(size_px) // 24, 12, 48))


def _strip_px(n_lines: int, text_px: int) -> int:
    return n_lines * round(text_px * LINE_SPACING) + 2 * (text_px // 4)


def _lay_out(
    entries: Sequence[LegendEntry], size_px: tuple[int, int]
) -> tuple[list[list[LegendEntry]], int]:
    """Lay entries out on as many lines as a third of the image has room for."""
    width, height = size_px
    text_px, lines = name_px(size_px), []
    while True:
        n_lines = (height // 3 - text_px // 2) // round(text_px * LINE_SPACING)
        lines = _wrap(entries, text_px, width)[: max(0, n_lines)]
        if sum(map(len, lines)) == len(entries) or text_px <= MIN_TEXT_PX:
            return lines, text_px
        text_px -= 1


def _entry_px(entry: LegendEntry, text_px: int) -> int:
    """Width of a swatch, its words, and the gaps around them."""
    words, font = drawable(entry[0], text_px)
    return round(2.5 * text_px + font.getlength(words))


def _wrap(entries: Sequence[LegendEntry], text_px: int, width: int) -> list[list[LegendEntry]]:
    """Entries line by line, without those that are wider than a line."""
    lines: list[list[LegendEntry]] = []
    room = 0
    for entry in entries:
        entry_px = _entry_px(entry, text_px)
        if entry_px > width:
            continue
        if entry_px > room:
            lines.append([])
            room = width
        lines[-1].append(entry)
        room -= entry_px
    return lines


def _draw_strip(image: Image.Image, lines: list[list[LegendEntry]], text_px: int) -> Image.Image:
    line_px, gap = round(text_px * LINE_SPACING), text_px // 4
    strip = Image.new("RGB", (image.width, _strip_px(len(lines), text_px)), _PAPER)
    top_left = (0, image.height - strip.height)
    strip = Image.blend(image.crop((*top_left, *image.size)), strip, 0.85)
    pen = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        middle = gap + number * line_px + line_px // 2
        left = text_px // 2
        for entry, colour in line:
            words, font = drawable(entry, text_px)
            box = (left, middle - text_px // 2, left + text_px, middle + text_px // 2)
            if colour != _PAPER:
                pen.rounded_rectangle(box, radius=max(2, text_px // 5), fill=colour)
            pen.text((left + 1.5 * text_px, middle), words, fill=_INK, font=font, anchor="lm")
            left += _entry_px((entry, colour), text_px)
    image.paste(strip, top_left)
    return image
