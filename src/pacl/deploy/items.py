"""Images named by where their bytes lie, so that any machine that sees the files can open them."""

from __future__ import annotations

import glob
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pacl.data.images import open_image
from pacl.data.source import IMAGE_SUFFIXES, Source
from pacl.data.sources import ARCHIVE_SUFFIXES, LIST_SUFFIX, STDIN, VIDEO_SUFFIXES, find_files
from pacl.errors import InputError

PARQUET = ".parquet"
IMAGE_COLUMNS = ("image", "jpg", "png", "jpeg", "bytes")
"""Names of the column that holds the images of a Parquet file, the first one there is."""
_NOT_FILES = (*VIDEO_SUFFIXES, LIST_SUFFIX, *(each for each in ARCHIVE_SUFFIXES if each != ".tar"))


@dataclass(frozen=True)
class Item:
    """One image: a file, or a piece of one."""

    name: str
    """What results call it: as pacl segment does without a cluster."""
    path: str
    """Absolute: machines of a cluster do not share a working directory."""
    offset: int = 0
    """Of a member of a tar: its first byte. Of a row of a Parquet file: its number."""
    n_bytes: int = 0
    """Of a member of a tar: its length. 0 for a whole file, or a row."""

    def source(self) -> Source:
        """Return what opens it."""
        return Source(self.name, self._open)

    def _open(self) -> Image.Image:
        if self.path.lower().endswith(PARQUET):
            return open_image(_read_row(self.path, self.offset), name=self.name)
        if not self.n_bytes:
            return open_image(Path(self.path), name=self.name)
        with Path(self.path).open("rb") as file:
            file.seek(self.offset)
            return open_image(file.read(self.n_bytes), name=self.name)


def iter_items(places: tuple[str, ...]) -> Iterator[Item]:
    """Yield the images of files, folders, patterns, tar archives and Parquet files.

    Of archives and Parquet files only what says where their images lie is read.

    Raises:
        InputError: A place does not exist, holds no image, or is read in one piece only.
    """
    for place in places:
        if "://" in place or place == STDIN:
            raise _not_shared(place)
        for path in _find(place):
            name, where = str(path), str(path.absolute())
            if name.lower().endswith(_NOT_FILES):
                raise _not_shared(name)
            if name.lower().endswith(".tar"):
                yield from _iter_members(name, where)
            elif name.lower().endswith(PARQUET):
                count = pq.read_metadata(name).num_rows
                yield from (Item(f"{name}/{row:08d}", where, row) for row in range(count))
            else:
                yield Item(name, where)


def _not_shared(place: str) -> InputError:
    return InputError(
        f"{place} cannot be shared among machines",
        why="--ray takes image files, folders, patterns, plain .tar and .parquet",
        fix="leave out --ray, or unpack it first",
    )


def _find(place: str) -> list[Path]:
    if place.lower().endswith(PARQUET) and glob.has_magic(place):
        found = sorted(map(Path, glob.glob(place, recursive=True)))  # noqa: PTH207
        if not found:
            raise InputError(f"no Parquet files match {place}")
        return found
    return list(find_files(place))


def _iter_members(name: str, where: str) -> Iterator[Item]:
    try:
        with tarfile.open(name, "r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if (
                    member.isfile()
                    and path.suffix.lower() in IMAGE_SUFFIXES
                    and path.name[0] != "."
                ):
                    yield Item(f"{name}/{member.name}", where, member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{name} is damaged, or no plain tar archive", why=str(error)) from None


def _read_row(path: str, row: int) -> bytes:
    """Return the image in one row of a Parquet file."""
    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        n_rows = file.metadata.row_group(group).num_rows
        if row < n_rows:
            value = _read_group(path, group)[row].as_py()
            content = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(content, bytes):
                raise InputError(f"row {row} of {path} holds no bytes of an image")
            return content
        row -= n_rows
    raise InputError(f"{path} has no row {row}")


@lru_cache(maxsize=2)
def _read_group(path: str, group: int) -> pa.ChunkedArray:
    """Return the images of one row group; neighbours are asked for one after the other."""
    file = pq.ParquetFile(path)
    column = next((name for name in IMAGE_COLUMNS if name in file.schema_arrow.names), None)
    if column is None:
        raise InputError(
            f"{path} has no column of images",
            why=f"looked for: {', '.join(IMAGE_COLUMNS)}; found: {file.schema_arrow.names}",
        )
    return file.read_row_group(group, columns=[column]).column(column)
