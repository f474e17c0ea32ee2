from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from pacl.data.images import PIXELS_MAX, open_image, open_mask, read_size
from pacl.errors import InputError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def picture() -> Image.Image:
    """Noise of 40 x 30 px: every byte of it matters."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def pixel(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


def test_bytes_and_files_give_the_same(tmp_path: Path, picture: Image.Image) -> None:
    path = tmp_path / "a.png"
    picture.save(path)
    for source in (path, str(path), path.read_bytes()):
        assert open_image(source).tobytes() == picture.tobytes()
    assert read_size(path) == (30, 40)


def test_cmyk() -> None:
    image = open_image(encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG"))
    assert image.mode == "RGB"
    red, green, blue = pixel(image)
    assert red < 5
    assert min(green, blue) > 250


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_tones(kind: str) -> None:
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    image = open_image(encoded(Image.fromarray(values), kind))
    assert [pixel(image, x) for x in range(3)] == [(0,) * 3, (100,) * 3, (255,) * 3]


def test_pixels_of_unknown_range_are_refused() -> None:
    with pytest.raises(InputError, match="floating-point"):
        open_image(encoded(Image.new("F", (2, 2), 0.5), "TIFF"))
    with pytest.raises(InputError, match="32-bit"):
        open_image(encoded(Image.new("I", (2, 2), 70000), "TIFF"))


def test_transparency_lies_over_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    image = open_image(encoded(palette, transparency=bytes([255, 0])))
    assert (pixel(image, 0), pixel(image, 1)) == ((255, 0, 0), (255, 255, 255))
    assert pixel(open_image(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 0))))) == (255,) * 3
    assert pixel(open_image(encoded(Image.new("LA", (1, 1), (9, 255))))) == (9, 9, 9)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_other_modes_become_rgb(mode: str) -> None:
    assert open_image(encoded(Image.new(mode, (3, 2)))).mode == "RGB"


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "white")
    image.paste("black", (0, 0, 20, 20))  # the left half, which is above once turned clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    image.save(path, exif=exif)
    upright = open_image(path)
    assert upright.size == (20, 40)
    assert read_size(path) == (40, 20)
    assert pixel(upright, 10, 5)[0] < 30
    assert pixel(upright, 10, 35)[0] > 225


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixel(open_image(content)) == (255, 0, 0)


def test_one_pixel_and_very_long_pictures() -> None:
    assert open_image(encoded(Image.new("RGB", (1, 1), "red"))).size == (1, 1)
    assert open_image(encoded(Image.new("1", (20000, 3)))).size == (20000, 3)


@pytest.mark.parametrize("action", ["error", "ignore"])  # what becomes of Pillow's warning
@pytest.mark.parametrize("factor", [1.1, 2.5])  # Pillow warns above its limit, refuses above twice
def test_a_decompression_bomb_is_refused(factor: float, action: Literal["error", "ignore"]) -> None:
    content = bytearray(encoded(Image.new("1", (1, 1))))
    side = int((PIXELS_MAX * factor) ** 0.5)
    content[16:24] = struct.pack(">II", side, side)  # a lie of a few bytes, as such bombs are
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(InputError, match="too large"):
            open_image(bytes(content))


def test_no_file_empty_file_other_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    with pytest.raises(InputError, match=r"not found: .*a\.jpg"):
        open_image(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.jpg is empty \(0 bytes\)"):
        open_image(path)
    path.write_text("<html>404</html>")
    with pytest.raises(InputError, match=r"a\.jpg is not an image"):
        open_image(path)
    with pytest.raises(InputError, match="cannot read"):
        open_image(tmp_path)
    with pytest.raises(InputError, match="given bytes is empty"):
        open_image(b"")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_file_cut_anywhere_is_one_clear_error(picture: Image.Image, kind: str) -> None:
    content = encoded(picture, kind)
    for length in np.linspace(1, len(content) // 2, 40, dtype=int):
        with pytest.raises(InputError):
            open_image(content[:length])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_damaged_bytes_give_a_picture_or_one_clear_error(picture: Image.Image, kind: str) -> None:
    content = encoded(picture, kind)
    random = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(content)
        damaged[random.integers(min(len(content), 200))] = random.integers(256)
        with contextlib.suppress(InputError):
            assert open_image(bytes(damaged)).mode == "RGB"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 99}])
def test_the_quick_check_fails_where_opening_fails(options: dict) -> None:
    random = np.random.default_rng(0)
    buffer = io.BytesIO()
    noise = random.integers(0, 256, (90, 130, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", **options)
    content = buffer.getvalue()
    cuts = [*np.linspace(1, len(content), 60, dtype=int), *range(len(content) - 6, len(content))]
    damaged = [content[:cut] for cut in cuts]
    for _ in range(100):
        changed = bytearray(content)
        changed[random.integers(len(content))] = random.integers(256)
        damaged.append(bytes(changed))

    def fails(each: bytes, *, is_check: bool) -> bool:
        try:
            open_image(each, is_check=is_check)
        except InputError:
            return True
        return False

    assert open_image(content, is_check=True).size == (17, 12)
    for each in damaged:
        assert fails(each, is_check=True) == fails(each, is_check=False)


def test_masks_hold_ids() -> None:
    ids = np.array([[0, 1, 255], [7, 8, 9]], dtype=np.uint8)
    grey = Image.fromarray(ids)
    palette = grey.copy()
    palette.putpalette([255 - value // 3 for value in range(768)])
    assert palette.mode == "P"
    deep = Image.fromarray(ids.astype(np.uint16) * 257)
    for image, factor in ((grey, 1), (palette, 1), (deep, 257)):
        mask = open_mask(encoded(image))
        assert mask.dtype == np.int64
        np.testing.assert_array_equal(mask, ids.astype(np.int64) * factor)
    np.testing.assert_array_equal(open_mask(encoded(Image.new("1", (2, 1), 1))), [[1, 1]])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK"])
def test_masks_of_colours_are_refused(mode: str) -> None:
    content = encoded(Image.new(mode, (2, 2)), "TIFF")
    with pytest.raises(InputError, match=f"(?s)holds colours, not class ids.*{mode}"):
        open_mask(content)


def test_jpeg_masks_are_refused() -> None:
    with pytest.raises(InputError, match="is a JPEG"):
        open_mask(encoded(Image.new("L", (8, 8)), "JPEG"))
