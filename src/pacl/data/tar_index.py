"""Where the samples of a tar lie: a scan of its headers, kept in a small file beside it.

A sample is the members of one name up to its first dot, as img2dataset and webdataset write them:
an image, and its captions in a .txt (a caption per line) or else a .json. An index holds 36 bytes
per sample, those without a text last; it is mapped into memory, and built again when the tar's size
or time has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pacl.data.derived import derived_places, write_derived
from pacl.data.foreign_index import read_foreign_index
from pacl.data.prefetch import prefetch
from pacl.data.source import IMAGE_SUFFIXES
from pacl.data.tar_members import (
    Member,
    group_members,
    iter_members,
    key_number,
    split_name,
)
from pacl.errors import InputError
from pacl.runtime.files import write_atomically

SAMPLE = np.dtype(
    [
        ("image_at", "<u8"),
        ("text_at", "<u8"),
        ("key", "<u8"),
        ("image_size", "<u4"),
        ("text_size", "<u4"),
        ("is_json", "<u4"),
    ]
)
"""Offsets and sizes in bytes within the tar; the key's digest, by which tables are joined."""

_ENDING = ".pacl-index"
_FORMAT = "pacl-tar-index-1"


@dataclass(frozen=True)
class TarIndex:
    """What is known of a tar without reading its payload.

    Attributes:
        path: The tar.
        index_path: The index's file.
        n_samples: Samples with an image and a text.
        n_no_text, n_no_image: Samples that lack one, and are left out.
        digest: Changes with the samples' names, order and sizes.
        tar_size, tar_mtime_ns: The tar's size and time of change when it was indexed.
        samples_at: Where the samples begin in the index's file.
    """

    path: Path
    index_path: Path
    n_samples: int
    n_no_text: int
    n_no_image: int
    digest: str
    tar_size: int
    tar_mtime_ns: int
    samples_at: int = 0

    def samples(self) -> np.ndarray:
        """Map the samples with a text, an array of `SAMPLE`."""
        return self._map(self.samples_at, self.n_samples)

    def textless(self) -> np.ndarray:
        """Map the samples with an image alone, for which a table may have captions."""
        return self._map(self.samples_at + self.n_samples * SAMPLE.itemsize, self.n_no_text)

    def has_textless(self) -> bool:
        """Return whether those are in the index; older ones only count them."""
        n_bytes = (self.n_samples + self.n_no_text) * SAMPLE.itemsize
        return self.index_path.stat().st_size >= self.samples_at + n_bytes

    def _map(self, at: int, n: int) -> np.ndarray:
        if not n:
            return np.empty(0, SAMPLE)
        return np.memmap(self.index_path, SAMPLE, mode="r", offset=at, shape=(n,))


def index_tar(path: Path, *, needs_textless: bool = False) -> TarIndex:
    """Open a tar's index, which is built where it is missing or stale.

    Of a tar that has vanished, the index that was built before is returned.

    Args:
        path: The tar.
        needs_textless: Whether an index that only counts the samples without a text is stale.

    Raises:
        InputError: There is no such tar, or it is no uncompressed tar.
        EnvironmentProblem: The index cannot be written, neither beside the tar nor in the cache.
    """
    found = find_index(path)
    is_enough = found is not None and (found.has_textless() or not needs_textless)
    return found if found is not None and is_enough else build_index(path)


def iter_indices(
    paths: Sequence[Path], *, rebuild: bool = False, workers: int = 8
) -> Iterator[tuple[TarIndex, bool] | InputError]:
    """Open or build the indices of tars, several at a time, and continue after errors.

    Args:
        paths: The tars.
        rebuild: Build all indices again, not only those that are missing or stale.
        workers: Tars that are read at the same time.

    Yields:
        For each tar, in their order, its index and whether it was built now; or why it cannot be
        read.

    Raises:
        EnvironmentProblem: An index cannot be written, neither beside its tar nor in the cache.
    """

    def index(path: Path) -> tuple[TarIndex, bool] | InputError:
        try:
            known = None if rebuild else find_index(path)
            return known or build_index(path), known is None
        except InputError as error:
            return error

    batches = (paths[k : k + workers] for k in range(0, len(paths), workers))
    for _, found in prefetch(index, batches, workers=workers):
        yield from found


def find_index(path: Path) -> TarIndex | None:
    """Return a tar's index if there is one that is not stale, or if the tar has vanished.

    Raises:
        InputError: There is neither the tar nor an index.
    """
    found = [
        index
        for place in derived_places(path, _ENDING)
        if (index := _read(path, place)) is not None
    ]
    try:
        status = path.stat()
    except OSError as error:
        if found:
            return found[0]
        raise InputError(f"no such tar: {path}", why=error.strerror or str(error)) from error
    now = status.st_size, status.st_mtime_ns
    return next((each for each in found if (each.tar_size, each.tar_mtime_ns) == now), None)


def build_index(path: Path) -> TarIndex:
    """Read a tar's headers and write its index, beside it or in the cache folder.

    A foreign index of the tar saves reading them, see `pacl.data.foreign_index`.

    Raises:
        InputError: There is no such tar, or it is no uncompressed tar.
        EnvironmentProblem: The index cannot be written, neither beside the tar nor in the cache.
    """
    try:
        content = _build(path, path.stat())
    except OSError as error:
        raise InputError(f"cannot read {path}", why=error.strerror or str(error)) from error
    place = write_derived(path, _ENDING, lambda place: write_atomically(place, content))
    built = _read(path, place)
    assert built is not None
    return built


def _read(path: Path, place: Path) -> TarIndex | None:
    try:
        with place.open("rb") as file:
            facts: dict[str, Any] = json.loads(file.readline())
            if facts.pop("format") != _FORMAT:
                return None
            return TarIndex(path, place, **facts, samples_at=file.tell())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _build(path: Path, status: os.stat_result) -> bytes:
    samples, textless, n_no_image = [], [], 0
    members = read_foreign_index(path, status.st_size) or iter_members(path, status.st_size)
    for key, of_sample in group_members(members):
        parts: dict[str, Member] = {}
        for member in of_sample:
            suffix = split_name(member.name)[1].lower()
            parts.setdefault("image" if f".{suffix}" in IMAGE_SUFFIXES else suffix, member)
        image, text = parts.get("image"), parts.get("txt") or parts.get("json")
        if image is None:
            n_no_image += "txt" in parts or "json" in parts
            continue
        text_at, text_size = (0, 0) if text is None else (text.at, text.size)
        found = (image.at, text_at, key_number(key), image.size, text_size, "txt" not in parts)
        (textless if text is None else samples).append(found)
    content = np.array(samples, SAMPLE).tobytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    n, size, mtime_ns = len(samples), status.st_size, status.st_mtime_ns
    facts = TarIndex(path, path, n, len(textless), n_no_image, digest, size, mtime_ns)
    kept = {k: v for k, v in asdict(facts).items() if not k.endswith(("path", "samples_at"))}
    head = json.dumps({"format": _FORMAT} | kept).encode()
    return head + b"\n" + content + np.array(textless, SAMPLE).tobytes()
