"""The forms that captioned images come in on a disk, each read as one table of files and captions.

| layout | recognised by |
|---|---|
| CSV, TSV, JSONL, Parquet | the file itself; in a folder `captions.*` or `metadata.*` |
| imagefolder (Hugging Face) | `metadata.*` beside the images, or in `train/` |
| COCO captions | JSON of `images` and `annotations`, in a folder `captions_*.json` |
| image and text | `photo.jpg` with `photo.txt` beside it, a caption per line |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacl.data.parquet import read_parquet
from pacl.data.source import IMAGE_SUFFIXES
from pacl.data.tables import Row, Table, read_table
from pacl.errors import InputError

TABLE_NAMES = tuple(
    f"{stem}.{suffix}"
    for stem in ("captions", "metadata", "train/metadata")
    for suffix in ("csv", "tsv", "jsonl", "parquet")
)
"""Tables that a folder is searched for, in this order."""
COCO_PATTERNS = ("captions_train*.json", "annotations/captions_train*.json", "captions_*.json")


@dataclass(frozen=True)
class Layout:
    """Captioned image files, as one table.

    Attributes:
        name: What the layout is called in reports.
        source: The file or folder that was recognised.
        table: Image files and captions.
        directory: Where relative image paths start.
    """

    name: str
    source: Path
    table: Table
    directory: Path


def find_layout(path: Path) -> Layout:
    """Recognise captioned images; the captions are read, the images are not opened.

    Args:
        path: A CSV, TSV, JSONL, Parquet or COCO captions file, or a folder.

    Raises:
        InputError: There is nothing of these, or the file is damaged.
    """
    if path.is_file():
        return _read_file(path)
    if not path.is_dir():
        raise InputError(f"no such file or folder: {path}")
    for name in TABLE_NAMES:
        if (path / name).is_file():
            return _read_file(path / name)
    for pattern in COCO_PATTERNS:
        if found := sorted(path.glob(pattern)):
            return _read_file(found[0])
    if any(_iter_texts(path)):
        rows = (row for text, image in _iter_texts(path) for row in _rows_of_text(text, image))
        table = Table(["file_name", "caption"], rows, "utf-8")
        return Layout("image and text", path, table, path)
    raise InputError(
        f"no caption table in {path}",
        why=f"looked for: {', '.join(TABLE_NAMES)}, {', '.join(COCO_PATTERNS)}, "
        "photo.jpg with photo.txt, *.tar",
        fix="add captions.csv with the columns file_name,caption, or give the table itself",
    )


def _read_file(path: Path) -> Layout:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _read_coco(path)
    if suffix == ".parquet":
        return Layout("Parquet", path, read_parquet(path), path.parent)
    name = {".tsv": "TSV", ".jsonl": "JSONL", ".ndjson": "JSONL"}.get(suffix, "CSV")
    if path.stem == "metadata":
        name = f"imagefolder, {name}"
    return Layout(name, path, read_table(path), path.parent)


def _read_coco(path: Path) -> Layout:
    """Read COCO captions; images are looked for in the folders where COCO's own archives lie."""
    try:
        content: Any = json.loads(path.read_bytes())
        names = {image["id"]: str(image["file_name"] or "") for image in content["images"]}
        pairs = [
            (names.get(each["image_id"], ""), str(each["caption"] or ""))
            for each in content["annotations"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a COCO captions file",
            why=f"it needs images (id, file_name) and annotations (image_id, caption): {error!r}",
            fix="give a COCO captions JSON, or a table with the columns file_name,caption",
        ) from error
    rows = [(k, {"file_name": f, "caption": c}) for k, (f, c) in enumerate(pairs, start=1)]
    split = path.stem.removeprefix("captions_")
    places = [path.parent, path.parent.parent]
    folders = [p / name for p in places for name in ("", split, "images", f"images/{split}")]
    first = next((name for name, _ in pairs if name), "")
    directory = next((f for f in folders if first and (f / first).is_file()), path.parent)
    return Layout("COCO captions", path, Table(["file_name", "caption"], rows, "utf-8"), directory)


def _iter_texts(folder: Path) -> Iterable[tuple[Path, Path]]:
    """Yield texts with their images, by name."""
    for image in sorted(folder.rglob("*")):
        text = image.with_suffix(".txt")
        if image.suffix.lower() in IMAGE_SUFFIXES and text.is_file():
            yield text, image.relative_to(folder)


def _rows_of_text(text: Path, image: Path) -> Iterator[Row]:
    lines = text.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate([line for line in lines if line.strip()] or [""], start=1):
        yield number, {"file_name": image.as_posix(), "caption": line}
