"""Images in files, archives and tables are opened by where their bytes lie."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacl.errors import InputError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from pacl.data.sources import find_sources  # noqa: E402
from pacl.deploy.items import iter_items  # noqa: E402


def encoded(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def reds(places: tuple[str, ...]) -> list[int]:
    return [int(np.asarray(item.source().open())[0, 0, 0]) for item in iter_items(places)]


def test_members_of_a_tar_have_the_names_of_one_process(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as archive:
        for k, name in enumerate(("a.png", "notes.txt", "sub/b.png", ".hidden.png")):
            info = tarfile.TarInfo(name)
            content = encoded(k)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert reds((str(path),)) == [0, 2]
    assert [i.name for i in iter_items((str(path),))] == [s.name for s in find_sources(path)]


@pytest.mark.parametrize("column", ["image", "jpg"])
def test_rows_of_parquet_across_row_groups(tmp_path: Path, column: str) -> None:
    values = [encoded(k) for k in range(5)]
    if column == "image":  # as the datasets library writes them
        values = [{"bytes": each, "path": None} for each in values]
    pq.write_table(
        pa.table({"id": range(5), column: values}), tmp_path / "a.parquet", row_group_size=2
    )
    assert reds((str(tmp_path / "*.parquet"),)) == [0, 1, 2, 3, 4]


def test_folders_are_read_as_ever(tmp_path: Path) -> None:
    for k in (3, 1, 2):
        (tmp_path / f"{k}.png").write_bytes(encoded(k))
    assert reds((str(tmp_path),)) == [1, 2, 3]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.mp4", "list.txt"])
def test_what_is_read_in_one_piece_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match="cannot be shared among machines"):
        list(iter_items((str(tmp_path / name),)))


@pytest.mark.parametrize("place", ["http://localhost/a.png", "-"])
def test_addresses_are_refused(place: str) -> None:
    with pytest.raises(InputError, match="cannot be shared"):
        list(iter_items((place,)))


def test_a_table_without_images_says_so(tmp_path: Path) -> None:
    pq.write_table(pa.table({"caption": ["a"]}), tmp_path / "a.parquet")
    [item] = iter_items((str(tmp_path / "a.parquet"),))
    with pytest.raises(InputError, match=r"no column of images\n.*found: \['caption'\]"):
        item.source().open()
