"""Tables of captions for the samples of tars, joined by key and read from a file that is mapped.

However large a table, nothing of it is held in memory: it is sorted by key once, into a file beside
it that is built again when the table has changed. Parquet and JSONL are read row by row for that,
with about 30 bytes of memory per caption; other tables are read whole.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt64

from pacl.data.columns import CAPTION_COLUMNS, IMAGE_COLUMNS, find_column
from pacl.data.derived import derived_places, write_derived
from pacl.data.parquet import read_parquet
from pacl.data.tables import read_table, spread
from pacl.data.tar_members import key_number, split_name
from pacl.errors import InputError
from pacl.runtime.files import replacing

KEY_COLUMNS = ("key", "__key__", *IMAGE_COLUMNS)
"""Columns that may hold the keys; a file name stands for its key."""

_ENDING = ".pacl-captions"
_FORMAT = "pacl-captions-1"
_HEAD = 4096
"""Bytes of the facts at the beginning of the file; the captions follow, then three arrays."""


@dataclass(frozen=True)
class _Facts:
    format: str
    table_size: int
    table_mtime_ns: int
    n: int
    n_keys: int
    example: str
    digest: str


class Recaptions:
    """Captions by key.

    Args:
        table: A table with a column of keys or file names (`KEY_COLUMNS`) and one of captions
            (`pacl.data.columns.CAPTION_COLUMNS`); a key on several rows has several captions.
        mode: Whether they replace the captions in the tars, or are added to them.

    Raises:
        InputError: There is no such table or column, or it has no captions.
        EnvironmentProblem: The sorted file cannot be written.
    """

    def __init__(self, table: Path, mode: Literal["replace", "add"] = "replace") -> None:
        self.table, self.mode = table, mode
        place, facts = _find(table)
        self.n, self.n_keys = facts.n, facts.n_keys
        self.example = facts.example
        self.fingerprint = f"{facts.digest} {mode}"
        arrays_at = place.stat().st_size - 20 * self.n

        def map_array(dtype: str, offset: int) -> np.ndarray:
            at = arrays_at + offset * self.n
            return np.memmap(place, dtype, mode="r", offset=at, shape=(self.n,))

        self._keys, self._starts = map_array("<u8", 0), map_array("<u8", 8)
        self._sizes = map_array("<u4", 16)
        self._content = np.memmap(place, np.uint8, mode="r")

    def find(self, key: int) -> list[str]:
        """Return the captions of a key, by its number; none where the table does not have it."""
        first, last = (
            int(np.searchsorted(self._keys, np.uint64(key), side)) for side in ("left", "right")
        )
        places = [(int(self._starts[k]), int(self._sizes[k])) for k in range(first, last)]
        return [self._content[at : at + size].tobytes().decode() for at, size in places]

    def has(self, keys: UInt64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Return whether the table has captions, for each of some keys."""
        places = np.minimum(np.searchsorted(self._keys, keys), self.n - 1)
        return self._keys[places] == keys


def _find(table: Path) -> tuple[Path, _Facts]:
    """Return the sorted file of a table, which is built where it is missing or stale."""
    try:
        status = table.stat()
    except OSError as error:
        raise InputError(f"no such table: {table}", why=error.strerror or str(error)) from error
    now = _FORMAT, status.st_size, status.st_mtime_ns
    for place in derived_places(table, _ENDING):
        facts = _read_facts(place)
        if facts and (facts.format, facts.table_size, facts.table_mtime_ns) == now:
            return place, facts
    place = write_derived(table, _ENDING, lambda place: _build(table, place, now))
    facts = _read_facts(place)
    assert facts is not None
    return place, facts


def _read_facts(place: Path) -> _Facts | None:
    try:
        with place.open("rb") as file:
            return _Facts(**json.loads(file.read(_HEAD)))
    except (OSError, ValueError, TypeError):
        return None


def _build(table: Path, place: Path, now: tuple[str, int, int]) -> None:
    keys, starts, sizes = array("Q"), array("Q"), array("I")
    digest, at, example = hashlib.sha256(), _HEAD, ""
    with replacing(place) as draft, draft.open("wb") as file:
        file.write(b" " * _HEAD)
        for key, text in _iter_captions(table):
            content = text.encode()
            file.write(content)
            keys.append(key_number(key))
            starts.append(at)
            sizes.append(len(content))
            digest.update(key.encode() + b"\0" + content + b"\n")
            at, example = at + len(content), example or key
        if not keys:
            raise InputError(f"no caption with a key in {table}")
        sorted_keys = np.frombuffer(keys, np.uint64)
        order = np.argsort(sorted_keys, kind="stable")
        sorted_keys = sorted_keys[order]
        n_keys = 1 + int((sorted_keys[1:] != sorted_keys[:-1]).sum())
        file.write(sorted_keys.astype("<u8").tobytes())
        file.write(np.frombuffer(starts, np.uint64)[order].astype("<u8").tobytes())
        file.write(np.frombuffer(sizes, np.uint32)[order].astype("<u4").tobytes())
        file.seek(0)
        facts = _Facts(*now, len(keys), n_keys, example[:200], digest.hexdigest()[:16])
        file.write(json.dumps(asdict(facts)).encode())


def _iter_captions(table: Path) -> Iterator[tuple[str, str]]:
    """Yield keys and captions, white space normalised, without the rows that lack one."""
    columns, rows = _open(table)
    key_column = find_column(columns, KEY_COLUMNS, None)
    caption_column = find_column(columns, CAPTION_COLUMNS, None)
    if key_column is None or caption_column is None:
        raise InputError(
            f"no column of {'keys' if key_column is None else 'captions'} in {table}",
            why=f"columns found: {', '.join(columns)}        looked for: "
            + ", ".join(KEY_COLUMNS if key_column is None else CAPTION_COLUMNS),
            fix="rename it to key, or caption",
        )
    for cells in rows:
        text = " ".join(cells.get(caption_column, "").split())
        key = split_name(cells.get(key_column, "").strip())[0]
        if text and key:
            yield key, text


def _open(table: Path) -> tuple[list[str], Iterator[dict[str, str]]]:
    """Return the columns and the well-formed rows of a table."""
    if table.suffix.lower() in (".jsonl", ".ndjson"):
        first = next(_iter_records(table), {})
        return list(first), (cells for record in _iter_records(table) for cells in spread(record))
    is_parquet = table.suffix.lower() == ".parquet"
    found = read_parquet(table) if is_parquet else read_table(table)
    return found.columns, (cells for _, cells in found.rows if cells is not None)


def _iter_records(table: Path) -> Iterator[dict]:
    with table.open(encoding="utf-8-sig", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record
