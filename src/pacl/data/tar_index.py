"""Where the samples of a tar lie: a scan of its headers, kept in a small file beside it.

A sample is the members of one name up to its first dot, as img2dataset and webdataset write them:
an image, and its captions in a .txt (a caption per line) or else a .json. An index holds 36 bytes
per sample, is mapped into memory, and is built again when the tar's size or time has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pacl.data.source import IMAGE_SUFFIXES
from pacl.errors import EnvironmentProblem, InputError
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
"""Offsets and sizes in bytes within the tar; the key's digest."""

_FORMAT = "pacl-tar-index-1"
_BLOCK = 512
_Found = tuple[str, int, int]


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
        """Map the samples, an array of `SAMPLE`."""
        if not self.n_samples:
            return np.empty(0, SAMPLE)
        return np.memmap(
            self.index_path, SAMPLE, mode="r", offset=self.samples_at, shape=(self.n_samples,)
        )


def index_tar(path: Path) -> TarIndex:
    """Open a tar's index, which is built where it is missing or stale.

    Of a tar that has vanished, the index that was built before is returned.

    Raises:
        InputError: There is no such tar, or it is no uncompressed tar.
        EnvironmentProblem: The index cannot be written, neither beside the tar nor in the cache.
    """
    places = (path.with_name(f"{path.name}.pacl-index"), _in_cache(path))
    try:
        status = path.stat()
    except OSError as error:
        for place in places:
            if (found := _read(path, place)) is not None:
                return found
        raise InputError(f"no such tar: {path}", why=error.strerror or str(error)) from error
    for place in places:
        found = _read(path, place)
        known = found and (found.tar_size, found.tar_mtime_ns)
        if found and known == (status.st_size, status.st_mtime_ns):
            return found
    content = _build(path, status)
    try:
        write_atomically(places[0], content)
    except EnvironmentProblem:
        write_atomically(places[1], content)
    built = _read(path, places[0]) or _read(path, places[1])
    assert built is not None
    return built


def _in_cache(path: Path) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    return root / "pacl" / "indices" / f"{name}.pacl-index"


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
    samples, n_no_text, n_no_image, key, parts = [], 0, 0, None, {}

    def close() -> None:
        nonlocal n_no_text, n_no_image
        image, text = parts.get("image"), parts.get("txt") or parts.get("json")
        n_no_image += image is None
        n_no_text += image is not None and text is None
        if image is not None and text is not None and key is not None:
            number = int.from_bytes(key_digest(key), "little")
            samples.append((image[0], text[0], number, image[1], text[1], "txt" not in parts))

    for name, at, size in _iter_members(path, status.st_size):
        folder, slash, base = name.rpartition("/")
        stem, _, suffix = base.partition(".")
        if folder + slash + stem != key:
            if parts:
                close()
            key, parts = folder + slash + stem, {}
        suffix = suffix.lower()
        kind = "image" if f".{suffix}" in IMAGE_SUFFIXES else suffix
        if kind in ("image", "txt", "json"):
            parts.setdefault(kind, (at, size))
    if parts:
        close()
    content = np.array(samples, SAMPLE).tobytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    facts = TarIndex(
        path, path, len(samples), n_no_text, n_no_image, digest, status.st_size, status.st_mtime_ns
    )
    kept = {k: v for k, v in asdict(facts).items() if not k.endswith(("path", "samples_at"))}
    return json.dumps({"format": _FORMAT} | kept).encode() + b"\n" + content


def key_digest(key: str) -> bytes:
    """Return the 8 bytes by which an index knows a key."""
    return hashlib.blake2b(key.encode(), digest_size=8).digest()


def _iter_members(path: Path, tar_size: int) -> Iterator[_Found]:
    """Yield name, offset and size of each file; ends where the tar was cut short.

    Plain headers, nearly all, are read here: tarfile takes 50 µs for each. The others it reads.
    """
    try:
        with tarfile.open(path, "r:") as tar, path.open("rb", buffering=0) as file:
            at = 0
            tar.firstmember = None  # pyright: ignore[reportAttributeAccessIssue] - read by opening; next() would return it again
            while True:
                header = os.pread(file.fileno(), _BLOCK, at)
                plain = _read_plain(header)
                if plain is not None:
                    name, size = plain
                    found, at = (name, at + _BLOCK, size), at + _BLOCK - (-size // _BLOCK) * _BLOCK
                else:
                    tar.offset = at
                    member = tar.next()
                    if member is None:
                        return
                    at = tar.offset
                    if not member.isfile():
                        continue
                    found = (member.name, member.offset_data, member.size)
                if found[1] + found[2] > tar_size:
                    return
                yield found
    except tarfile.ReadError as error:
        raise InputError(
            f"{path} is not an uncompressed tar",
            why=str(error).splitlines()[0],
            fix="unpack a .tar.gz first: samples are read from their place in the tar",
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}", why=str(error)) from error


def _read_plain(header: bytes) -> tuple[str, int] | None:
    """Return name and size of a regular file with a short name; None for anything else."""
    is_whole = len(header) == _BLOCK and header[257:262] == b"ustar"
    if not is_whole or header[156] not in b"0\0" or header[345] or header[124] & 128:
        return None
    name = header[:100].rstrip(b"\0")
    if not name or name.endswith(b"/"):
        return None
    try:
        return name.decode(), int(header[124:136].strip(b"\0 "), 8)
    except ValueError:
        return None
