"""Text tables (CSV, TSV or JSONL) in any usual encoding and with any usual separator."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pacl.errors import InputError

Row = tuple[int, dict[str, str] | None]
"""Line number in the file, and the cells by column; None where the row is malformed."""

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
"""Ends of the names of text tables."""

_SEPARATORS = (",", "\t", ";", "|")
_JSON_SUFFIXES = (".jsonl", ".ndjson")
_LINES_PER_ROW_MAX = 50


@dataclass(frozen=True)
class Table:
    """The parsed text of a table.

    Attributes:
        columns: Column names, in order.
        rows: Can be iterated over once; blank lines are left out.
        encoding: The encoding in which the text was read.
    """

    columns: list[str]
    rows: Iterable[Row]
    encoding: str


def read_table(source: Path) -> Table:
    """Read a CSV or TSV file (separated by `,`, tab, `;` or `|`), or a JSONL file by its suffix.

    UTF-8, with or without a byte order mark, and UTF-16 with one are recognised; anything else is
    read as Windows-1252.

    Raises:
        InputError: The file cannot be read, is empty or is not text; or, while its rows are
            iterated over, a quotation mark is never closed.
    """
    text, encoding = _decode(source)
    if not text.strip():
        raise InputError(f"{source.name} is empty", fix="it needs a header: file_name,caption")
    if "\0" in text:
        raise InputError(f"{source.name} is not text", fix="give a CSV, TSV or JSONL file")
    if source.suffix.lower() in _JSON_SUFFIXES:
        rows = list(_iter_json_rows(text))
        columns = list(dict.fromkeys(key for _, cells in rows if cells for key in cells))
        empty = dict.fromkeys(columns, "")
        filled = [(line, None if cells is None else empty | cells) for line, cells in rows]
        return Table(columns, filled, encoding)
    header = text.lstrip().splitlines()[0]
    separator = max(_SEPARATORS, key=lambda mark: len(next(csv.reader([header], delimiter=mark))))
    columns = [name.strip() for name in next(csv.reader([header], delimiter=separator))]
    return Table(columns, _iter_csv_rows(text, columns, separator, source), encoding)


def _decode(source: Path) -> tuple[str, str]:
    """Return the text without a byte order mark, and the name of its encoding."""
    try:
        content = source.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {source}", why=str(error)) from error
    encodings = ["utf-8-sig", "cp1252"]
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings.insert(0, "utf-16")
    for encoding in encodings:
        try:
            return content.decode(encoding), encoding.removesuffix("-sig")
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1"), "latin-1"  # reads any bytes


def _iter_csv_rows(text: str, columns: list[str], separator: str, source: Path) -> Iterator[Row]:
    """Yield the rows below the header.

    After a stray quotation mark the reader silently puts all following lines into one cell; so a
    row of very many lines is an error.
    """
    reader = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=separator)
    n_blank = text[: len(text) - len(text.lstrip())].count("\n")
    next(reader)
    n_before = n_lines = reader.line_num
    try:
        for cells in reader:
            n_before, n_lines = n_lines, reader.line_num
            if n_lines - n_before > _LINES_PER_ROW_MAX:
                raise csv.Error(f"the next row is {n_lines - n_before} lines long")
            if cells:
                is_whole = len(cells) == len(columns)
                row = dict(zip(columns, cells, strict=True)) if is_whole else None
                yield n_blank + n_before + 1, row
        if n_lines - n_before > 1 and text.count('"') % 2:
            raise csv.Error("the last row does not end")
    except csv.Error as error:
        raise InputError(
            f"{source.name} cannot be read beyond line {n_blank + n_before}",
            why=str(error),
            fix="look there for a quotation mark that is opened and never closed",
        ) from error


def _iter_json_rows(text: str) -> Iterator[Row]:
    """Yield the rows of one JSON object per line; see `spread`."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            content = None
        if not isinstance(content, dict):
            yield number, None
            continue
        yield from ((number, cells) for cells in spread(content))


def spread(record: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the rows of a record: one per text in a list; values other than text become empty."""
    lists = {k: v for k, v in record.items() if _is_list_of_texts(v)}
    cells = {k: v if isinstance(v, str) else "" for k, v in record.items()}
    for texts in zip_longest(*lists.values(), fillvalue="") if lists else ((),):
        yield cells | dict(zip(lists, texts, strict=True))


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
