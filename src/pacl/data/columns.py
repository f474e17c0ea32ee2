"""Which columns of a table hold the image and the caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pacl.data.source import IMAGE_SUFFIXES
from pacl.data.tables import Table
from pacl.errors import InputError

IMAGE_COLUMNS = ("file_name", "filename", "filepath", "image", "path", "url")
CAPTION_COLUMNS = ("caption", "title", "text", "prompt")

_ENDINGS = tuple(IMAGE_SUFFIXES)


def choose_columns(
    table: Table, path: Path, source: Path, image_key: str | None, caption_key: str | None
) -> tuple[str, str]:
    """Return the image and caption columns, as given or as detected.

    Args:
        table: The table.
        path: What the user named, for the suggested command.
        source: The table's file.
        image_key, caption_key: Names that the user gave, or None.

    Raises:
        InputError: There is no such column.
    """
    image = find_column(table.columns, IMAGE_COLUMNS, image_key)
    caption = find_column(table.columns, CAPTION_COLUMNS, caption_key)
    if image is not None and caption is not None:
        return image, caption
    kind, names, key = (
        ("caption", CAPTION_COLUMNS, caption_key)
        if caption is None
        else ("image", IMAGE_COLUMNS, image_key)
    )
    found = ", ".join(table.columns)
    raise InputError(
        f"no {kind} column in {source.name}",
        why=f"columns found: {found}        looked for: {key or ', '.join(names)}",
        fix=_suggest(table, f"pacl train --data {path}", image, caption),
    )


def find_column(columns: Sequence[str], names: Sequence[str], key: str | None) -> str | None:
    """Return the column called `key`, or without a key the first of `names` that there is."""
    if key is not None:
        return key if key in columns else None
    by_lower_case = {column.lower(): column for column in reversed(columns)}
    return next((by_lower_case[name] for name in names if name in by_lower_case), None)


def _suggest(table: Table, command: str, image: str | None, caption: str | None) -> str:
    """Suggest a command with the likeliest columns: images by file name, captions by length."""
    if any(column.lower().endswith(_ENDINGS) for column in table.columns):
        return "the table has no header; add one as its first line: file_name,caption"
    first = next((cells for _, cells in table.rows if cells), dict.fromkeys(table.columns, ""))
    free = [name for name in table.columns if name not in (image, caption)]
    if image is None and free:
        image = max(free, key=lambda name: first[name].lower().endswith(_ENDINGS))
        free.remove(image)
    if caption is None and free:
        caption = max(free, key=lambda name: len(first[name]))
    return f"{command} --image-key {image or 'IMAGE'} --caption-key {caption or 'CAPTION'}"
