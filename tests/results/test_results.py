"""Every file a result writes gives back the same mask; images hold what they should."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacl.data.sources import Source
from pacl.errors import EnvironmentProblem, InputError
from pacl.results import FORMATS, Segmentation
from pacl.results.folder import OutputFolder
from pacl.results.palette import class_colours
from pacl.results.segmentation import Failure
from pacl.results.writers import Writers, strips
from pacl.results.writers.heatmap import colourise, draw_heatmap
from pacl.results.writers.overlay import class_borders, draw_overlay
from pacl.results.writers.png import read_label_png, write_label_png
from pacl.results.writers.writer import Result
from pacl.runtime.files import write_atomically


def make_result(n_labels: int = 3, size: tuple[int, int] = (30, 40)) -> Segmentation:
    rng = np.random.default_rng(n_labels)
    return Segmentation(
        image=Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)),
        labels=tuple(f"label {k}" for k in range(n_labels)),
        label_map=rng.integers(0, n_labels + 1, size).astype(np.int32),
        scores=rng.random(size, dtype=np.float32),
        class_scores=rng.random((n_labels, 3, 4), dtype=np.float32),
        source="photos/street.jpg",
    )


@pytest.mark.parametrize(("n_labels", "mode"), [(1, "P"), (254, "P"), (255, "I;16"), (300, "I;16")])
def test_label_png_round_trip(tmp_path: Path, n_labels: int, mode: str) -> None:
    result = make_result(n_labels)
    paths = result.save(tmp_path, formats=["png"])
    assert paths == {"png": tmp_path / "street.png"}
    with Image.open(paths["png"]) as picture:
        assert picture.mode == mode
    assert np.array_equal(read_label_png(paths["png"]), result.label_map)
    classes = json.loads((tmp_path / "classes.json").read_text("utf-8"))
    assert [classes["labels"][k] for k in range(1, n_labels + 1)] == list(result.labels)
    assert classes["ignore"] == ([0, 255] if n_labels <= 254 else [0])


def test_label_png_is_coloured_as_the_palette(tmp_path: Path) -> None:
    label_map = np.array([[0, 1], [2, 2]], dtype=np.int32)
    write_label_png(tmp_path / "a.png", label_map, labels=["a", "b"])
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert np.array_equal(pixels[[0, 1], [1, 0]], class_colours(["a", "b"]))


def test_npz_and_json_round_trip(tmp_path: Path) -> None:
    result = make_result()
    paths = result.save(tmp_path / "new" / "folder", formats=["npz", "json"], stem="one")
    with np.load(paths["npz"]) as arrays:
        assert np.array_equal(arrays["label_map"], result.label_map)
        assert np.array_equal(arrays["scores"], result.scores)
        assert np.array_equal(arrays["class_scores"], result.class_scores)
        assert tuple(arrays["labels"]) == result.labels
    summary = json.loads(paths["json"].read_text("utf-8"))
    assert (summary["width"], summary["height"]) == (40, 30)
    areas = {entry["label"]: entry["area"] for entry in summary["labels"]}
    assert areas == result.areas
    assert sum(areas.values()) + summary["none_area"] == pytest.approx(1)


def test_areas_and_scores_of_absent_labels() -> None:
    result = make_result()
    result.label_map[:] = 0
    result.label_map[:15] = 2
    assert result.areas == {"label 0": 0, "label 1": 0.5, "label 2": 0}
    entries = result.summary()["labels"]
    assert isinstance(entries, list)
    assert [entry["mean_score"] is None for entry in entries] == [True, False, True]
    assert result.describe() == f"{result.source}: label 1 50%"
    result.label_map[:] = 0
    assert result.describe().endswith(": none of the labels")


def test_a_failure_names_its_image_once() -> None:
    assert Failure("a.png", "cannot read a.png").describe() == "cannot read a.png"
    assert Failure("a.png", "out of memory").describe() == "a.png: out of memory"


def test_saved_overlay_has_the_size_of_the_picture(tmp_path: Path) -> None:
    result = make_result()
    path = result.save(tmp_path)["overlay"]
    with Image.open(path) as picture:
        shown = np.asarray(picture)
    assert np.array_equal(shown, np.asarray(result.overlay()))
    assert result.overlay(legend=False).size == result.image.size == result.overlay().size


def test_saving_never_overwrites_the_source(tmp_path: Path) -> None:
    source = tmp_path / "street.png"
    source.write_bytes(b"a photograph")
    result = make_result()
    result = replace(result, source=str(source))
    with pytest.raises(InputError, match="overwrite"):
        result.save(tmp_path)
    assert source.read_bytes() == b"a photograph"
    assert list(tmp_path.iterdir()) == [source]


def test_unknown_formats_and_labels_are_refused(tmp_path: Path) -> None:
    result = make_result()
    with pytest.raises(InputError, match="unknown format 'gif'"):
        result.save(tmp_path, formats=["png", "gif"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="no label 'cow'"):
        result.heatmap("cow")


def test_a_failed_write_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentProblem, match="cannot write"):
        write_atomically(tmp_path / "file" / "a.json", b"")


def test_colours_are_of_names_and_distinct() -> None:
    names = [f"label {k}" for k in range(300)]
    colours = class_colours(names)
    assert len(np.unique(colours, axis=0)) == 300
    assert np.array_equal(colours[:7], class_colours(names[:7]))
    distances = np.linalg.norm(colours[:20, None].astype(float) - colours[None, :20], axis=-1)
    assert distances[np.triu_indices(20, k=1)].min() > 30
    assert np.array_equal(class_colours(["x"]), class_colours(["y", "x"])[1:])
    street = class_colours(["zebra", "sky", "road"])
    assert np.array_equal(street[1:], class_colours(["sky", "road"]))


def test_overlay_tints_labelled_pixels_only() -> None:
    image = Image.new("RGB", (6, 4), (100, 100, 100))
    label_map = np.zeros((4, 6), dtype=np.int32)
    label_map[:, 3:] = 1
    shown = np.asarray(draw_overlay(image, label_map, ["a"], opacity=1, legend=False))
    assert (shown[:, :3] == 100).all()
    assert (shown[:, 3:] == class_colours(["a"])[0]).all()
    assert class_borders(label_map).sum() == 4
    label_map[:, :3] = 2
    shown = np.asarray(draw_overlay(image, label_map, ["a", "b"], opacity=1, legend=False))
    assert (shown[:, :2] == class_colours(["a", "b"])[1]).all()
    assert (shown[:, 2] < shown[:, 1]).any()  # the outline
    assert class_borders(label_map, width_px=2).sum() == 8


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (600, 1100, 3), dtype=np.uint8))
    label_map = rng.integers(0, 3, (6, 11)).repeat(100, axis=0).repeat(100, axis=1)
    scores = rng.random(label_map.shape, dtype=np.float32)
    result = Segmentation(image, ("a", "b"), label_map, scores, np.zeros((2, 6, 11)))
    shown, summary = np.asarray(result.overlay()), result.summary()
    for label, entry in zip("ab", summary["labels"], strict=True):  # pyright: ignore
        number = "ab".index(label) + 1
        assert entry["area"] == (label_map == number).mean()
        assert entry["mean_score"] == pytest.approx(scores[label_map == number].mean(), rel=1e-5)
    monkeypatch.setattr(strips, "STRIP_PX", 7 * 1100)
    assert np.array_equal(np.asarray(result.overlay()), shown)
    assert result.summary()["none_area"] == (label_map == 0).mean()


def test_an_empty_result_has_an_overlay() -> None:
    result = make_result()
    result.label_map[:] = 0
    assert result.overlay().width == 40


def test_colour_map_ends_and_order() -> None:
    colours = colourise(np.linspace(-0.5, 1.5, 101)[None]).astype(int)[0]
    assert colours[0].tolist() == [8, 6, 30]
    assert colours[-1].tolist() == [252, 252, 190]
    luminance = colours @ [0.299, 0.587, 0.114]
    assert (np.diff(luminance) >= -1).all()


def test_heatmap_is_brightest_where_the_label_is() -> None:
    result = make_result(size=(60, 80))
    result.class_scores[1] = 0
    result.class_scores[1, 0, 0] = 1
    heat = np.asarray(result.heatmap("label 1")).astype(int).sum(axis=-1)
    assert heat[:10, :10].mean() > heat[30:, 30:].mean() + 150
    similarity = result.similarity("label 1")
    assert similarity.shape == (60, 80)
    assert similarity[0, 0] == pytest.approx(1)
    assert (similarity[40:] == 0).all()


def test_heatmap_of_a_constant_map_and_a_given_range() -> None:
    image = Image.new("RGB", (4, 4))
    assert draw_heatmap(image, np.full((4, 4), 0.3)).size == (4, 4)
    low = np.asarray(draw_heatmap(image, np.zeros((4, 4)), value_range=(0, 1), opacity=1))
    assert (low == [8, 6, 30]).all()


class _Table:
    """A format with one file for the whole folder, as COCO has."""

    def mark(self, stem: str) -> str:
        return "all.txt"

    def open(self, folder: Path, labels: Sequence[str]) -> None:
        self._path, self._lines = folder / "all.txt", [", ".join(labels)]

    def add(self, result: Result, stem: str) -> Path:
        self._lines.append(stem)
        return self._path

    def close(self) -> None:
        write_atomically(self._path, "\n".join(self._lines).encode())


def test_a_format_may_be_one_file_for_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "table", _Table)
    writers = Writers(tmp_path, ["table", "json"])
    for stem in ("a", "b"):
        files = writers.add(make_result(), stem)
        assert files == {"table": tmp_path / "all.txt", "json": tmp_path / f"{stem}_areas.json"}
    writers.close()
    assert (tmp_path / "all.txt").read_text() == "label 0, label 1, label 2\na\nb"


def test_nothing_is_opened_for_no_result(tmp_path: Path) -> None:
    Writers(tmp_path, ["png"]).close()
    assert not list(tmp_path.iterdir())


def test_addresses_become_names_that_files_may_have(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, ["png"])
    folder.claim({}, may_replace=False)
    base = "https://example.org/image?size=large&key=" + 300 * "ä"
    for name in (base, base + "b", "https://example.org/a:b.png"):
        found = replace(make_result(), source=name)
        path = folder.save(found, name)["png"]
        assert path.is_file()
        assert not set(path.name) & set('?:*<>|"')
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_a_folder_knows_any_source_again(tmp_path: Path) -> None:
    source = Source("https://example.org/film.mp4#7", lambda: make_result().image)
    folder = OutputFolder(tmp_path, ["png"])
    folder.claim({}, may_replace=False)
    assert not folder.has(source)
    files = folder.save(replace(make_result(), source=source.name), source.name)
    assert OutputFolder(tmp_path, ["png"]).has(source)
    assert not OutputFolder(tmp_path, ["png", "npz"]).has(source)
    files["png"].unlink()
    assert not OutputFolder(tmp_path, ["png"]).has(source)


def test_a_process_does_its_share_of_the_images(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, ["png"], shard=(1, 3))
    assert [folder.count_todo(10, n_tried) for n_tried in (0, 4, 5)] == [4, 4, 5]
    folder.n_skipped = 3
    assert folder.count_todo(10, 0) == 1
