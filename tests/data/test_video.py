"""Videos drawn on the spot, and damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pacl.data.sources import find_sources
from pacl.data.video import format_time
from pacl.errors import InputError

av = pytest.importorskip("av")
N_FRAMES = 12


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames at 8 per second, each brighter than the one before."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(N_FRAMES):
            pixels = np.full((48, 64, 3), 20 * k, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_frames_come_in_order_with_number_and_time(film: Path) -> None:
    found = list(find_sources(film, every=5))
    assert find_sources(film, every=5).count() == 3
    assert [source.name for source in found] == [
        f"{film}/film_000000_00h00m00s000",
        f"{film}/film_000005_00h00m00s625",
        f"{film}/film_000010_00h00m01s250",
    ]
    assert {source.sequence for source in found} == {str(film)}
    images = [source.open() for source in found]
    assert images[0].size == (64, 48)
    assert [np.asarray(image).mean() for image in images] == pytest.approx([0, 100, 200], abs=4)
    assert len(list(find_sources(film))) == N_FRAMES


def test_a_damaged_video_is_one_clear_error(film: Path, tmp_path: Path) -> None:
    for name, content, says in (
        ("cut.mp4", film.read_bytes()[:900], ""),
        ("empty.mp4", b"", "cannot read"),
        ("text.mp4", b"no video at all " * 99, "cannot read"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        [source] = find_sources(path)
        with pytest.raises(InputError, match=f"{says}.*{name}"):
            source.open()


def test_a_video_that_breaks_off_keeps_its_frames(film: Path, tmp_path: Path) -> None:
    content = bytearray(film.read_bytes())
    start = content.index(b"mdat") + 4
    stop = content.index(b"moov") - 4
    middle = (start + stop) // 2
    content[middle:stop] = bytes(stop - middle)
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    *frames, last = find_sources(path)
    assert 0 < len(frames) < N_FRAMES
    assert frames[0].open().size == (64, 48)
    with pytest.raises(InputError, match=r"broken\.mp4 is (damaged|cut off) after"):
        last.open()


def test_time_stamps_sort_and_fit_into_names() -> None:
    assert format_time(3725.0625) == "01h02m05s062"
    assert format_time(59.9996) == "00h01m00s000"


def test_frames_below_one_are_refused(film: Path) -> None:
    with pytest.raises(InputError, match="every 0"):
        find_sources(film, every=0)
