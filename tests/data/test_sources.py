"""What users name, and the files it stands for."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pacl.data.images import read_image
from pacl.data.sources import Places, Source, find_sources
from pacl.errors import InputError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ["b.JPG", "a.png", ".hidden.png", "notes.txt", "inner/c.webp", "odd.xyz"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def names(places: Places) -> list[Path]:
    return [Path(source.name) for source in find_sources(places)]


def test_a_folder_is_the_images_directly_in_it(photos: Path) -> None:
    assert names(photos) == [photos / "a.png", photos / "b.JPG"]


def test_a_file_is_taken_whatever_its_ending(photos: Path) -> None:
    assert names(str(photos / "odd.xyz")) == [photos / "odd.xyz"]


def test_patterns_reach_into_folders(photos: Path) -> None:
    found = names(f"{photos}/**/*")
    assert found == [photos / "a.png", photos / "b.JPG", photos / "inner" / "c.webp"]


def test_several_sources_keep_their_order_and_each_file_comes_once(photos: Path) -> None:
    found = names([photos / "b.JPG", photos, str(photos / "*.png")])
    assert found == [photos / "b.JPG", photos / "a.png"]


def test_a_source_is_opened_by_its_own_means() -> None:
    image = Image.new("RGB", (3, 2))
    frame = Source("film.mp4 frame 7", lambda: image)
    assert list(find_sources([frame, frame])) == list(find_sources(frame)) == [frame]
    assert frame.open() is image


def test_a_list_holds_any_places_and_what_is_missing_fails_alone(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (2, 3)).save(photos / "a.png")
    monkeypatch.chdir(photos)
    (photos / "list.txt").write_text("# mine\na.png\nmissing.png\n\ninner\n", encoding="utf-8")
    found = find_sources("list.txt")
    assert found.count() is None
    missing = next(source for source in found if source.name == "missing.png")
    assert names("list.txt") == [Path("a.png"), Path("missing.png"), Path("inner/c.webp")]
    with pytest.raises(InputError, match=r"no such file or folder: missing\.png"):
        missing.open()
    (photos / "list.txt").write_text("a.png\nb.JPG\n", encoding="utf-8")
    assert find_sources("list.txt").count() == 2


def test_a_list_may_name_files_from_its_own_folder(
    photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    (photos / "list.txt").write_text("\ufeffa.png\ninner\n", encoding="utf-8")
    assert names(photos / "list.txt") == [photos / "a.png", photos / "inner" / "c.webp"]
    (photos / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"cannot read .*list\.txt as a list"):
        find_sources(photos / "list.txt")


def test_an_iterator_is_gone_through_as_images_are_asked_for(photos: Path) -> None:
    asked = []

    def places() -> Iterator[Path]:
        for name in ("a.png", "b.JPG"):
            asked.append(name)
            yield photos / name

    found = iter(find_sources(places()))
    assert asked == []
    assert next(found).name == str(photos / "a.png")
    assert asked == ["a.png"]


def test_an_image_comes_on_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(buffer, format="PNG")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(buffer.getvalue())))
    [source] = find_sources("-")
    assert source.name == "stdin"
    assert source.open().size == (3, 2)


def _write_tar(path: Path, *names: str, mode: Any = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for k, name in enumerate(names):
            buffer = io.BytesIO()
            Image.new("RGB", (4 + k, 3), "blue").save(buffer, format="PNG")
            member = tarfile.TarInfo(name)
            member.size = len(buffer.getvalue())
            archive.addfile(member, io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize(
    ("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tgz", "w:gz")]
)
def test_archives_are_read_without_unpacking(tmp_path: Path, name: str, mode: str) -> None:
    _write_tar(tmp_path / name, "0.png", "0.txt", "in/1.png", ".2.png", mode=mode)
    found = list(find_sources(tmp_path / name))
    assert [source.name for source in found] == [
        f"{tmp_path / name}/0.png",
        f"{tmp_path / name}/in/1.png",
    ]
    assert [source.open().width for source in found] == [4, 6]


def test_shards_are_a_pattern_and_a_damaged_one_fails_alone(tmp_path: Path) -> None:
    for k in (8, 9, 10):
        _write_tar(tmp_path / f"{k:03d}.tar", "a.png", "b.png")
    path = tmp_path / "009.tar"
    path.write_bytes(path.read_bytes()[:1556])
    found = list(find_sources(f"{tmp_path}/{{008..010}}.tar"))
    opened = []
    for source in found:
        try:
            opened.append(source.open().width)
        except InputError as error:
            opened.append(str(error).splitlines()[0])
    assert opened == [4, 5, 4, f"{path} is damaged after 1 images", 4, 5]
    with pytest.raises(InputError, match=r"no such file or folder: .*011\.tar"):
        find_sources(f"{tmp_path}/{{008..011}}.tar")


def test_a_file_with_pattern_signs_in_its_name_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a[1].png"
    path.touch()
    assert names(path) == [path]


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing.png", "no such file"), ("*.tiff", "match the pattern"), ("inner2", "no such file")],
)
def test_sources_without_images_are_named(photos: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_sources([photos, photos / name])


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no images in .*\n.*\.jpeg"):
        find_sources(tmp_path)


def test_a_file_a_pil_image_and_an_array_are_the_same_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), image, pixels):
        image = read_image(given)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_pil_images_of_any_mode_are_read_as_their_files(tmp_path: Path, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("RGB" if mode == "CMYK" else "RGBA").convert(mode)
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    image.save(path)
    assert np.array_equal(np.asarray(read_image(image)), np.asarray(read_image(path)))


def test_pil_images_are_put_upright() -> None:
    image = Image.new("RGB", (4, 2))
    image.getexif()[0x0112] = 6
    assert read_image(image).size == (2, 4)


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_pil_images_of_unknown_range_are_refused(mode: str) -> None:
    with pytest.raises(InputError, match="range"):
        read_image(Image.new(mode, (2, 2)))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_images_are_refused(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8"):
        read_image(array)


def test_a_member_that_is_too_large_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for k, size in enumerate((5, 200, 6)):
            noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / f"{k}.png")
            archive.add(tmp_path / f"{k}.png", f"{k}.png")
    monkeypatch.setattr("pacl.data.urls.BYTES_MAX", 1000)
    first, large, last = find_sources(str(path))
    assert (first.open().width, last.open().width) == (5, 6)
    with pytest.raises(InputError, match=r"1\.png is too large"):
        large.open()
