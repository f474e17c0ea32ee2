"""What users name, and the files it stands for."""

from __future__ import annotations

from pathlib import Path

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
    assert find_sources([frame, frame]) == find_sources(frame) == [frame]
    assert frame.open() is image


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
