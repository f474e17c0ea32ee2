"""Tars of small JPEGs: keys and captions kept, resumed, failures listed."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pacl.data import converting
from pacl.data.converting import ConvertReport, convert_pairs
from pacl.data.opening import open_pairs
from pacl.data.tars import TarPairs
from pacl.errors import InputError
from tar_files import png, write_tar


def convert(place: Path, output: Path, **options: Any) -> ConvertReport:
    settings: dict[str, Any] = {"short_side_px": 8, "quality": 95} | options
    return convert_pairs(open_pairs(place), output, **settings)


def opened(output: Path) -> TarPairs:
    pairs = open_pairs(output)
    assert isinstance(pairs, TarPairs)
    return pairs


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


@pytest.fixture
def tars_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "large"
    folder.mkdir()
    for shard in range(3):
        members = []
        for k in range(4 * shard, 4 * shard + 4):
            image = png(10 * k, (48, 16)) if k != 6 else b"damaged"
            members += [(f"x/{k:03d}.png", image), (f"x/{k:03d}.txt", f"house {k}".encode())]
            members += [(f"x/{k:03d}.meta.json", b"{}")]
        write_tar(folder / f"{shard}.tar", members)
    return folder


def test_tars_keep_names_keys_captions_and_other_members(tars_dir: Path, tmp_path: Path) -> None:
    done = convert(tars_dir, tmp_path / "small")
    assert (done.n_tars, done.n_complete, done.n_failed) == (3, 3, 1)
    assert "x/006,x/006" not in (tmp_path / "small" / "1.tar.failures.csv").read_text()
    assert "x/006," in (tmp_path / "small" / "1.tar.failures.csv").read_text()
    with tarfile.open(tmp_path / "small" / "0.tar") as tar:
        assert tar.getnames()[:3] == ["x/000.jpg", "x/000.txt", "x/000.meta.json"]
    pairs = opened(tmp_path / "small")
    kept = [k for k in range(12) if k != 6]
    assert [pairs.read_captions(row) for row in range(11)] == [[f"house {k}"] for k in kept]
    for row, k in enumerate(kept):
        image = pairs.open_image(row)
        assert image.size == (24, 8)
        assert abs(int(np.asarray(image)[0, 0, 0]) - 10 * k) <= 3


def test_small_images_keep_their_size(tars_dir: Path, tmp_path: Path) -> None:
    convert(tars_dir, tmp_path / "small", short_side_px=100)
    assert opened(tmp_path / "small").open_image(0).size == (48, 16)


def test_an_interrupted_conversion_resumes_and_parts_share_it(
    tars_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(tars_dir, tmp_path / "whole")

    def stop(n_done: int, n_todo: int) -> None:
        if n_done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tars_dir, tmp_path / "parts", on_progress=stop)
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == ["0.tar", "convert.json"]
    before = (tmp_path / "parts" / "0.tar").stat().st_mtime_ns
    assert convert(tars_dir, tmp_path / "parts", part=(1, 2)).n_complete == 2
    assert convert(tars_dir, tmp_path / "parts", part=(0, 2)).n_failed == 1
    assert (tmp_path / "parts" / "0.tar").stat().st_mtime_ns == before
    assert content_of(tmp_path / "parts") == content_of(tmp_path / "whole")
    with pytest.raises(InputError, match=r"(?s)other settings.*side: 8 there, 9 here"):
        convert(tars_dir, tmp_path / "parts", short_side_px=9)


def test_a_table_becomes_tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "SAMPLES_PER_TAR", 2)
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = ["file_name,caption"]
    for k in range(3):
        (folder / f"{k}.png").write_bytes(png(k, (20, 40)))
        rows += [f"{k}.png,tree {k}", f"{k}.png,a {k}"]
    (folder / "captions.csv").write_text("\n".join(rows))
    assert convert(folder, tmp_path / "small").n_tars == 2
    pairs = opened(tmp_path / "small")
    assert [pairs.read_captions(row) for row in range(3)] == [
        [f"tree {k}", f"a {k}"] for k in range(3)
    ]
    assert pairs.open_image(2).size == (8, 16)
    assert pairs.name(2) == "00001.tar: 000000002.jpg"
    with pytest.raises(InputError, match="one by one"):
        convert_pairs(
            open_pairs(f"{folder}=2,{folder}"), tmp_path / "x", short_side_px=8, quality=90
        )


@pytest.mark.parametrize("wrong", [{"short_side_px": 0}, {"quality": 101}, {"workers": 0}])
def test_settings_out_of_range_leave_no_folder(
    tars_dir: Path, tmp_path: Path, wrong: dict[str, int]
) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}: .* is out of range"):
        convert(tars_dir, tmp_path / "small", **wrong)
    assert not (tmp_path / "small").exists()
