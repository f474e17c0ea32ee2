"""Names in their regions, in a font that has their script, or else in a legend."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from pacl.results.palette import class_colours
from pacl.results.writers import lettering
from pacl.results.writers.lettering import (
    add_legend,
    drawable,
    find_room,
    search_step,
    shorten_legend,
)
from pacl.results.writers.overlay import draw_overlay


def room_in(region: np.ndarray, size_px: tuple[int, int]) -> tuple[int, int] | None:
    step = search_step(region.shape)
    return find_room(region[::step, ::step], size_px, step=step)


def test_room_is_inside_the_region_and_near_its_middle() -> None:
    region = np.zeros((60, 90), dtype=bool)
    region[10:50, 20:80] = True
    assert room_in(region, (20, 10)) == (50, 30)
    assert room_in(region, (60, 40)) == (50, 30)
    assert room_in(region, (61, 40)) is None
    assert room_in(region, (200, 5)) is None
    region[25:35, 30:70] = False  # the middle is another's
    found = room_in(region, (30, 8))
    assert found is not None
    x, y = found
    assert region[y - 4 : y + 4, x - 15 : x + 15].all()


def test_room_in_a_large_image_is_inside_too() -> None:
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.random((13, 17)) > 0.3, np.ones((90, 90), dtype=bool))
    x, y = room_in(blocks, (170, 80)) or (0, 0)
    assert blocks[y - 40 : y + 40, x - 85 : x + 85].all()


def test_names_stand_in_their_regions_and_the_others_in_the_legend() -> None:
    label_map = np.ones((120, 160), dtype=np.int32)
    label_map[5:50, 5:155], label_map[70, 20:24] = 2, 3
    labels = ["road", "sky", "traffic light"]
    image = Image.new("RGB", (160, 120), (90, 90, 90))
    plain = np.asarray(draw_overlay(image, label_map, labels, legend=False)).astype(int)
    shown = np.asarray(draw_overlay(image, label_map, labels)).astype(int)
    written = np.abs(shown - plain).sum(axis=-1) > 0
    assert written[5:50, 5:155].any()  # sky
    legend = shown[-12:].reshape(-1, 3).tolist()
    assert class_colours(labels)[2].tolist() in legend
    assert class_colours(labels)[0].tolist() not in legend
    assert not written[50:70, :20].any()


def test_an_image_whose_names_all_fit_has_no_legend() -> None:
    label_map = np.ones((100, 200), dtype=np.int32)
    shown = np.asarray(draw_overlay(Image.new("RGB", (200, 100)), label_map, ["a"]))
    assert (shown[-12:] == shown[-1, -1]).all()


def test_of_thousands_of_labels_those_in_the_image_differ() -> None:
    labels = [f"word {k}" for k in range(2000)]
    label_map = np.arange(1, 2001, 40, dtype=np.int32).repeat(8).reshape(20, 20)
    image = Image.new("RGB", (20, 20))
    shown = np.asarray(draw_overlay(image, label_map, labels, opacity=1, legend=False))
    colours = np.unique(shown[:, 1::8].reshape(-1, 3), axis=0)
    assert len(colours) >= 50


def test_words_have_a_font_with_their_script(monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setattr(
        lettering, "_FONTS", (f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf",)
    )
    lettering._find_font.cache_clear()
    assert drawable("road", 20)[1].getname()[0] != "DejaVu Sans"
    words, font = drawable("снег δέντρο", 20)
    assert (words, font.getname()[0]) == ("снег δέντρο", "DejaVu Sans")
    assert drawable("снег 鸟", 20)[0] == "снег"
    assert drawable("鸟", 20)[0] == "?"
    assert drawable("", 20)[0] == ""
    monkeypatch.setattr(lettering, "_FONTS", ("no such font.ttf",))
    lettering._find_font.cache_clear()
    words, font = drawable("Bäume \U0001f697", 20)
    assert words == "Baume"
    assert isinstance(font, ImageFont.FreeTypeFont)
    lettering._find_font.cache_clear()


@pytest.mark.parametrize(
    ("size", "n_shown"),
    [((1, 1), 0), ((20, 300), 0), ((640, 48), 6), ((128, 128), 3), ((640, 480), 9)],
)
def test_a_legend_takes_a_third_of_the_image_at_most(size: tuple[int, int], n_shown: int) -> None:
    entries = [(f"a rather long label {k}", (200, 10 * k, 0)) for k in range(9)]
    image = Image.new("RGB", size, (0, 0, 90))
    pixels = np.asarray(add_legend(image, entries))
    assert pixels.shape[:2] == size[::-1]
    assert (pixels[: -(-2 * size[1] // 3)] == (0, 0, 90)).all()
    seen = [(pixels == colour).all(axis=-1).any() for _, colour in entries]
    assert sum(seen) == n_shown
    assert seen == sorted(seen, reverse=True)  # the first entries are the largest classes
    if n_shown:
        assert (pixels[-1] > 200).all()  # nothing runs over the edge of the paper


def test_a_long_legend_says_how_many_are_missing() -> None:
    entries = [(f"label {k}", (200, k, 0)) for k in range(60)]
    shown = shorten_legend(entries, (480, 360))
    assert 4 < len(shown) < 20
    assert shown[:-1] == entries[: len(shown) - 1]
    assert shown[-1][0] == f"+{60 - len(shown) + 1}"
    assert shorten_legend(entries[:3], (480, 360)) == entries[:3]
