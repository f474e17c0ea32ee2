"""Tars: the index, the order, the samples, weights, and what happens when some of it is bad."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacl.data import tar_index, tars
from pacl.data.opening import open_pairs
from pacl.data.order import MixedOrder, WindowedOrder
from pacl.data.stream import MixedStream, iter_stand_ins
from pacl.data.tars import TarPairs
from pacl.errors import EnvironmentProblem, InputError
from tar_files import Members, png, write_tar


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "RETRIES_S", (0.0,))


def samples(*numbers: int) -> Members:
    return [
        part
        for k in numbers
        for part in (
            (f"{k:09d}.png", png(k)),
            (f"{k:09d}.txt", f"a house, number {k}\n the  house\n".encode()),
            (f"{k:09d}.json", b'{"caption": "not this one"}'),
        )
    ]


def write_shards(folder: Path, n_shards: int = 3, n_each: int = 4) -> list[Path]:
    numbers = [range(k * n_each, (k + 1) * n_each) for k in range(n_shards)]
    return [write_tar(folder / f"{k:05d}.tar", samples(*n)) for k, n in enumerate(numbers)]


def red(stream: TarPairs | MixedStream, row: int | np.integer) -> int:
    return np.asarray(stream.open_image(int(row)))[0, 0, 0]


def opened(place: Path | str) -> TarPairs:
    found = open_pairs(place)
    assert isinstance(found, TarPairs)
    return found


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_are_found_whatever_the_form_of_the_tar(tmp_path: Path, form: int) -> None:
    long = "ü" * 60 + "/" + "n" * 90
    members = [
        *samples(1, 2),
        (f"{long}.JPG", png(7)),
        (f"{long}.txt", b"long name"),
        ("x.cls", b""),
    ]
    members += [("only.png", png(1)), ("text.txt", b"a"), *samples(3)]
    pairs = opened(write_tar(tmp_path / "a.tar", members, form))
    assert [red(pairs, row) for row in range(len(pairs))] == [1, 2, 7, 3]
    assert pairs.read_captions(0) == ["a house, number 1", "the house"]
    assert pairs.read_captions(2) == ["long name"]
    assert pairs.name(1) == "a.tar: 000000002.png"
    assert "1 with no text, 1 with no image" in pairs.summary()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"caption": "one"}, ["one"]),
        ({"Captions": ["one", "two"], "url": "x"}, ["one", "two"]),
        ({"text": " two  words "}, ["two words"]),
    ],
)
def test_captions_in_json(tmp_path: Path, content: dict, expected: list[str]) -> None:
    members = [("a.png", png(0)), ("a.json", json.dumps(content).encode())]
    assert opened(write_tar(tmp_path / "a.tar", members)).read_captions(0) == expected


@pytest.mark.parametrize("content", [b"[1]", b"{", b"{}", b'{"caption": 3}'])
def test_a_sample_without_caption_is_named(tmp_path: Path, content: bytes) -> None:
    """open_clip hangs on samples without text (issue 1016)."""
    pairs = opened(write_tar(tmp_path / "a.tar", [("a.png", png(0)), ("a.json", content)]))
    with pytest.raises(InputError, match=r"a\.tar: a\.png has no caption"):
        pairs.read_captions(0)


def test_an_index_is_built_once_and_again_when_the_tar_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tar(tmp_path / "a.tar", samples(1, 2))
    first = tar_index.index_tar(path)
    assert first.index_path == tmp_path / "a.tar.pacl-index"
    assert first.index_path.stat().st_size <= 200 + 40 * 2
    with monkeypatch.context() as patch:
        patch.setattr(tar_index, "build_index", None)
        assert tar_index.index_tar(path) == first
    first.index_path.write_bytes(b"{}")
    assert tar_index.index_tar(path) == first
    write_tar(path, samples(1, 2, 3))
    assert tar_index.index_tar(path).n_samples == 3
    assert tar_index.index_tar(path).digest != first.digest


def test_an_index_of_a_read_only_folder_is_kept_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write_tar(tmp_path / "a.tar", samples(1))
    write = tar_index.write_atomically

    def refuse(place: Path, content: bytes) -> None:
        if place.parent == tmp_path:
            raise EnvironmentProblem("read-only")
        write(place, content)

    monkeypatch.setattr(tar_index, "write_atomically", refuse)
    index = tar_index.index_tar(path)
    assert index.index_path.is_relative_to(tmp_path / "cache")
    assert tar_index.index_tar(path) == index


def test_a_tar_that_was_cut_short_keeps_its_whole_samples(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", samples(1, 2))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"a house, number 2")])
    assert len(opened(path)) == 1


@pytest.mark.parametrize("content", [b"no tar at all" * 100, b""])
def test_what_is_no_tar(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not an uncompressed tar|no captioned image"):
        open_pairs(path)


@pytest.mark.parametrize(
    "place", ["{00000..00002}.tar", "{00000,00001,00002}.tar", "*.tar", "", "0000{0..2}.tar"]
)
def test_ranges_choices_patterns_and_folders(tmp_path: Path, place: str) -> None:
    write_shards(tmp_path)
    pairs = opened(str(tmp_path / place))
    assert [red(pairs, row) for row in range(len(pairs))] == list(range(12))


def test_missing_tars_are_named_and_bad_ranges_refused(tmp_path: Path) -> None:
    write_shards(tmp_path)
    pairs = opened(str(tmp_path / "{00001..00004}.tar"))
    assert len(pairs) == 8
    assert "no such tar: 00003.tar, 00004.tar; 2 in all" in pairs.summary()
    with pytest.raises(InputError, match=r"(?s)no captioned image.*tars looked for: 1, none"):
        open_pairs(tmp_path / "7.tar")
    with pytest.raises(InputError, match="is no range"):
        open_pairs("{a..b}.tar")
    with pytest.raises(InputError, match="no weight after"):
        open_pairs("a.tar=x,b.tar")


def test_weights_say_how_often_a_source_is_seen(tmp_path: Path) -> None:
    write_shards(tmp_path, 1)
    other = tmp_path / "other"
    other.mkdir()
    for k in range(20, 30):
        Image.new("RGB", (4, 3), (k, 0, 0)).save(other / f"{k}.png")
        (other / f"{k}.txt").write_text(f"tree {k}")
    pairs = open_pairs(f"{tmp_path / '00000.tar'}=2,{other}=0.5")
    assert isinstance(pairs, MixedStream)
    assert len(pairs) == 14
    assert pairs.order.n_per_epoch == 13
    first, second = (
        [red(pairs, row) for row in pairs.order.rows(0, epoch, 0, 13)] for epoch in (0, 1)
    )
    assert sorted(k for k in first if k < 20) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sorted(k for k in first + second if k >= 20) == list(range(20, 30))
    assert "an epoch has 13 images" in pairs.summary()
    row = next(row for row in range(14) if red(pairs, row) == 23)
    assert pairs.read_captions(row) == ["tree 23"]


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_any_cut_of_the_order_is_the_same_permutation(size: int) -> None:
    sizes = [3, 5, 0, 2] * 5
    order = WindowedOrder(sizes)
    n = order.n_per_epoch
    whole = order.rows(1, 2, 0, n)
    assert sorted(whole) == list(range(n))
    cut = [WindowedOrder(sizes).rows(1, 2, k, min(n, k + size)) for k in range(0, n, size)]
    np.testing.assert_array_equal(np.concatenate(cut), whole)
    assert any(whole != order.rows(1, 3, 0, n))
    assert any(whole != order.rows(2, 2, 0, n))
    mixed = MixedOrder([order, WindowedOrder([7])], [1, 1.5])
    n = mixed.n_per_epoch
    cut = [mixed.rows(1, 2, k, min(n, k + size)) for k in range(0, n, size)]
    np.testing.assert_array_equal(np.concatenate(cut), mixed.rows(1, 2, 0, n))


@pytest.mark.parametrize("sizes", [[4] * 5, [30, 30, 5], [1, 60, 2]])
def test_a_mixture_of_many_blocks_has_every_row_once(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacl.data.order._BLOCK", 7)
    mixed = MixedOrder([WindowedOrder([size]) for size in sizes], [1.0] * len(sizes))
    n = mixed.n_per_epoch
    for epoch in range(3):
        whole = mixed.rows(0, epoch, 0, n)
        assert sorted(whole) == list(range(n))
        cut = [mixed.rows(0, epoch, k, min(n, k + 4)) for k in range(0, n, 4)]
        np.testing.assert_array_equal(np.concatenate(cut), whole)


def test_an_epoch_stays_near_a_few_shards() -> None:
    order = WindowedOrder([100] * 40)
    for start in range(0, 4000, 100):
        assert len(np.unique(order.rows(0, 0, start, start + 100) // 100)) <= 8
    assert len(np.unique(order.rows(0, 0, 0, 100) // 100)) == 8


def test_stand_ins_are_neighbours_then_other_shards() -> None:
    assert list(iter_stand_ins((3, 2, 4), 1)) == [2, 0, 4, 3, 6, 7, 8, 5]
    assert list(iter_stand_ins((0, 1), 0)) == []


def test_a_shard_that_vanishes_is_lost_and_may_come_back_during_the_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_shards(tmp_path)
    for path in paths:
        tar_index.index_tar(path)
    paths[1].rename(tmp_path / "away")
    pairs = opened(str(tmp_path / "{00000..00002}.tar"))
    assert len(pairs) == 12, "its index is still there"
    with pytest.raises(InputError, match=r"00001\.tar cannot be read: No such file"):
        pairs.open_image(5)
    assert red(pairs, 9) == 9

    again = opened(str(tmp_path / "{00000..00002}.tar"))
    monkeypatch.setattr(tars.time, "sleep", lambda _: (tmp_path / "away").rename(paths[1]))
    assert red(again, 5) == 5


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_indices_of_several_tars_come_in_order_past_the_damaged(
    tmp_path: Path, workers: int
) -> None:
    paths = [tmp_path / f"{k}.tar" for k in range(4)]
    for k, path in enumerate(paths):
        samples = [[(f"{n}.png", png(n)), (f"{n}.txt", b"a house")] for n in range(k + 1)]
        write_tar(path, [member for sample in samples for member in sample])
    paths[1].write_bytes(b"no tar" * 200)

    def found(*, rebuild: bool) -> list[tuple[int, bool] | None]:
        indices = tar_index.iter_indices(paths, rebuild=rebuild, workers=workers)
        return [
            None if isinstance(each, InputError) else (each[0].n_samples, each[1])
            for each in indices
        ]

    assert found(rebuild=False) == [(1, True), None, (3, True), (4, True)]
    assert found(rebuild=False) == [(1, False), None, (3, False), (4, False)]
    assert found(rebuild=True) == [(1, True), None, (3, True), (4, True)]
