"""Tables of captions joined to tars by key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pacl.data import tar_index
from pacl.data.opening import open_pairs
from pacl.data.recaptions import Recaptions
from pacl.data.tars import TarPairs
from pacl.errors import InputError
from tar_files import png, write_tar

ROWS = [("002", "a new two"), ("000", "a new zero"), ("000", "another  zero"), ("9", "of nobody")]


def as_csv(folder: Path) -> Path:
    path = folder / "new.csv"
    path.write_text("key,caption\n" + "".join(f"{key},{text}\n" for key, text in ROWS))
    return path


def as_file_names(folder: Path) -> Path:
    path = folder / "new.tsv"
    path.write_text("file_name\ttext\n" + "".join(f"{k}.jpg\t{text}\n" for k, text in ROWS))
    return path


def as_jsonl(folder: Path) -> Path:
    records: list[dict[str, object]] = [{"key": "002", "caption": "a new two"}]
    records.append({"key": "9", "caption": "of nobody"})
    records.append({"key": "000", "caption": ["a new zero", "another zero"]})
    path = folder / "new.jsonl"
    path.write_text("\n".join(["{", "", *map(json.dumps, records)]))
    return path


def as_parquet(folder: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = folder / "new.parquet"
    keys, texts = zip(*ROWS, strict=True)
    parquet.write_table(pyarrow.table({"__key__": keys, "caption": texts}), path)
    return path


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    members = [
        part for k in range(3) for part in ((f"{k:03d}.png", png(k)), (f"{k:03d}.txt", b"old"))
    ]
    return write_tar(tmp_path / "a.tar", members)


def opened(path: Path, table: Recaptions) -> TarPairs:
    pairs = open_pairs(path, recaptions=table)
    assert isinstance(pairs, TarPairs)
    return pairs


@pytest.mark.parametrize("write", [as_csv, as_file_names, as_jsonl, as_parquet])
def test_captions_are_replaced_or_extended(
    tmp_path: Path, tar: Path, write: Callable[[Path], Path]
) -> None:
    replaced = opened(tar, Recaptions(write(tmp_path)))
    assert [replaced.read_captions(row) for row in range(3)] == [
        ["a new zero", "another zero"],
        ["old"],
        ["a new two"],
    ]
    extended = opened(tar, Recaptions(write(tmp_path), "add"))
    assert extended.read_captions(0) == ["old", "a new zero", "another zero"]
    assert extended.read_captions(1) == ["old"]
    assert "4 captions of 3 keys" in extended.summary()
    assert "extend those of about 67%" in extended.summary()
    plain = open_pairs(tar)
    assert len({plain.fingerprint, replaced.fingerprint, extended.fingerprint}) == 3
    assert plain.images_fingerprint == replaced.images_fingerprint


def test_samples_without_a_text_join_where_the_table_has_one(tmp_path: Path) -> None:
    members = [(f"{k:03d}.png", png(k)) for k in range(4)]
    members[2:2] = [("001.txt", b"own text")]
    tar = write_tar(tmp_path / "a.tar", members)
    plain = open_pairs(tar)
    assert len(plain) == 1
    index = tar_index.find_index(tar)
    assert index is not None
    whole = index.index_path.read_bytes()
    pairs = opened(tar, Recaptions(as_csv(tmp_path)))
    assert [pairs.read_captions(row)[0] for row in range(3)] == [
        "own text",
        "a new zero",
        "a new two",
    ]
    assert [pairs.open_image(row).getpixel((0, 0)) for row in range(3)] == [
        (k, 0, 0) for k in (1, 0, 2)
    ]
    assert pairs.n_skipped == 1
    assert plain.images_fingerprint != pairs.images_fingerprint
    assert plain.n_skipped == 3
    # An index from before holds the samples with a text only.
    old = whole[: index.samples_at + tar_index.SAMPLE.itemsize]
    index.index_path.write_bytes(old)
    assert open_pairs(tar).fingerprint == plain.fingerprint
    assert index.index_path.read_bytes() == old
    assert len(opened(tar, Recaptions(as_csv(tmp_path)))) == 3
    assert index.index_path.read_bytes() == whole


def test_the_sorted_file_follows_the_table(
    tmp_path: Path, tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_csv(tmp_path)
    first = Recaptions(path)
    with monkeypatch.context() as patch:
        patch.setattr("pacl.data.recaptions._build", None)
        assert Recaptions(path).fingerprint == first.fingerprint
    path.write_text("key,caption\n001,a new one\n")
    changed = opened(tar, Recaptions(path))
    assert changed.read_captions(1) == ["a new one"]
    assert changed.fingerprint != opened(tar, first).fingerprint


def test_tables_that_do_not_fit_are_named(tmp_path: Path, tar: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("key,caption\nabc,a house\n")
    with pytest.raises(
        InputError, match=r"(?s)for none of the samples.*first key is abc.*000\.png"
    ):
        open_pairs(tar, recaptions=Recaptions(path))
    (tmp_path / "0.png").write_bytes(png(0))
    (tmp_path / "photos.csv").write_text("image,caption\n0.png,a house\n")
    with pytest.raises(InputError, match=r"joined to tars by key"):
        open_pairs(tmp_path / "photos.csv", recaptions=Recaptions(path))
    path.write_text("id,caption\nabc,a house\n")
    with pytest.raises(InputError, match=r"(?s)no column of keys.*columns found: id, caption"):
        Recaptions(path)
    path.write_text("key,caption\n000,\n")
    with pytest.raises(InputError, match="no caption with a key"):
        Recaptions(path)
    with pytest.raises(InputError, match="no such table"):
        Recaptions(tmp_path / "missing.csv")
