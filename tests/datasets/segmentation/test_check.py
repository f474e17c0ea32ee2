from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark_copies import COPIES, copy_coco, copy_voc, every_id, save_image, save_mask
from pacl.data import images
from pacl.data.images import open_mask
from pacl.datasets.segmentation import voc
from pacl.datasets.segmentation.check import BenchmarkReport, check_benchmark
from pacl.errors import InputError
from pacl.evaluation.plan import open_segmentation

MASKS = {
    "voc20": "VOCdevkit/VOC2012/SegmentationClass",
    "voc21": "VOCdevkit/VOC2012/SegmentationClass",
    "context59": "VOCdevkit/VOC2010/SegmentationClassContext",
    "context60": "VOCdevkit/VOC2010/SegmentationClassContext",
    "coco-object": "coco_stuff164k/annotations/val2017",
    "coco-stuff171": "coco_stuff164k/annotations/val2017",
    "ade150": "ADEChallengeData2016/annotations/validation",
    "cityscapes": "cityscapes/gtFine/val",
}


@pytest.fixture(params=COPIES)
def name(request: pytest.FixtureRequest) -> str:
    if request.param.startswith("context"):
        pytest.importorskip("pycocotools")
    return request.param


def rewrite(
    root: Path, name: str, change: Callable[[np.ndarray], np.ndarray], *, form: str = "grey"
) -> None:
    for path in (root / MASKS[name]).rglob("*.png"):
        save_mask(path, change(open_mask(path)), form=form)


def reduce_zero(mask: np.ndarray) -> np.ndarray:
    return np.where(mask == 0, 255, np.where(mask == 255, 255, mask - 1))


def refusal(report: BenchmarkReport) -> str:
    with pytest.raises(InputError) as caught:
        report.require_usable()
    assert "fix:" in str(caught.value)
    return str(caught.value)


def test_a_good_copy(name: str, tmp_path: Path) -> None:
    masks = COPIES[name](tmp_path)
    report = check_benchmark(name, tmp_path)
    report.require_usable()
    assert (report.n_found, report.n_masks_read, report.strange_ids) == (3, 3, {})
    assert sum(report.histogram.values()) == sum(mask.size for mask in masks)
    assert (
        min(report.histogram.values()) > 0
        or name.startswith("context60")
        or (name == "coco-object")
    )  # every class occurs; the last two ignore nothing
    assert len(report.warnings) == 1
    assert "not comparable" in report.warnings[0]
    assert report.describe().startswith(f"{name}: 3 images with masks, ")
    header, rows = report.class_table()
    assert header == ["class, in 3 masks", "pixels"]
    assert [row[0] for row in rows] == list(report.histogram)
    assert json.loads(json.dumps(report.to_json()))["is_usable"] is True


@pytest.mark.parametrize("which", ["folder", "voc21"])
def test_opening_reads_each_image_header_and_each_mask_once(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading is what opening a large data set costs; a folder compares masks' headers before."""
    copy_voc(tmp_path)
    if which == "folder":
        for name in ("a", "b"):
            save_image(tmp_path / "images" / f"{name}.png", (8, 8))
            save_mask(tmp_path / "masks" / f"{name}.png", np.eye(8, dtype=np.uint8))
    n_opened, n_loaded = Counter[str](), Counter[str]()
    open_file, decode = images._open, images._decode

    def count_opened(source: Path, name: str) -> Image.Image:
        n_opened[str(source)] += 1
        return open_file(source, name)

    def count_loaded(source: Path, name: str) -> Image.Image:
        n_loaded[str(source)] += 1
        return decode(source, name)

    monkeypatch.setattr(images, "_open", count_opened)
    monkeypatch.setattr(images, "_decode", count_loaded)
    labels = "sky,road" if which == "folder" else None
    opened = open_segmentation(
        which, root=tmp_path, labels=labels, progress=lambda _: nullcontext(lambda *_: None)
    )
    items = opened.dataset.items
    assert [n_opened[str(item.image_path)] for item in items] == [1] * len(items)
    assert n_loaded == Counter(str(item.mask_path) for item in items)
    n_headers = 2 if which == "folder" else 1
    assert [n_opened[str(item.mask_path)] for item in items] == [n_headers] * len(items)


def test_expected_counts_are_the_official_ones() -> None:
    expected = {"voc20": (1449,), "voc21": (1449,), "context59": (5104, 5105),
                "context60": (5104, 5105), "coco-object": (5000,), "coco-stuff171": (5000,),
                "ade150": (2000,), "cityscapes": (500,)}  # fmt: skip
    for name, counts in expected.items():
        assert check_benchmark(name, "/nowhere").n_expected == counts


def test_a_wrong_root_tells_what_to_download(name: str, tmp_path: Path) -> None:
    report = check_benchmark(name, tmp_path)
    assert not report.is_usable
    assert report.n_found == 0
    assert "http" in report.download
    assert "looked for" in refusal(report)


@pytest.mark.parametrize("name", ["voc20", "voc21", "ade150", "context59", "context60"])
def test_masks_that_are_already_reduced(name: str, tmp_path: Path) -> None:
    if name.startswith("context"):
        pytest.importorskip("pycocotools")
    COPIES[name](tmp_path)
    check_benchmark(name, tmp_path).require_usable()
    rewrite(tmp_path, name, reduce_zero)
    assert "already reduced" in refusal(check_benchmark(name, tmp_path))


def test_a_background_that_was_made_void(tmp_path: Path) -> None:
    copy_voc(tmp_path)
    rewrite(tmp_path, "voc21", lambda mask: np.where(mask == 0, 255, mask))
    assert "no pixel is 0 (background)" in refusal(check_benchmark("voc21", tmp_path))


def test_a_background_that_was_made_the_last_class() -> None:
    as_distributed = {0: 73, 15: 10, 5: 8, 20: 3, 255: 6}
    reduced = {20: 73, 14: 10, 4: 8, 0: 3, 255: 6}
    for scale, is_refused in ((100_000, True), (1_000, False)):  # few pictures prove nothing
        of_many = {raw: n * scale for raw, n in reduced.items()}
        problem = voc.explain_counts(of_many)
        assert (problem is not None) == is_refused
        assert voc.explain_counts({raw: n * scale for raw, n in as_distributed.items()}) is None


def test_masks_without_an_object(tmp_path: Path) -> None:
    copy_voc(tmp_path)
    rewrite(tmp_path, "voc21", lambda mask: np.where(mask == 255, 255, 0))
    for name in ("voc20", "voc21"):
        assert "hold no object" in refusal(check_benchmark(name, tmp_path))


def test_masks_that_are_ignored_altogether(tmp_path: Path) -> None:
    COPIES["cityscapes"](tmp_path)
    rewrite(tmp_path, "cityscapes", lambda mask: np.full_like(mask, 29))  # caravan: not scored
    assert "every pixel read of Cityscapes val's masks is ignored" in refusal(
        check_benchmark("cityscapes", tmp_path)
    )
    COPIES["ade150"](tmp_path)
    rewrite(tmp_path, "ade150", np.zeros_like)
    assert "they hold only 0" in refusal(check_benchmark("ade150", tmp_path))


@pytest.mark.parametrize("name", ["coco-object", "coco-stuff171"])
def test_masks_in_train_ids(name: str, tmp_path: Path) -> None:
    copy_coco(tmp_path)
    rewrite(tmp_path, name, lambda mask: every_id([*range(171), 255], mask.shape, filler=0))
    assert "already converted by another tool" in refusal(check_benchmark(name, tmp_path))


def test_cityscapes_in_train_ids(tmp_path: Path) -> None:
    COPIES["cityscapes"](tmp_path)
    rewrite(tmp_path, "cityscapes", lambda mask: np.where(mask < 7, 255, mask - 7))
    assert "train ids, not label ids" in refusal(check_benchmark("cityscapes", tmp_path))


def test_cityscapes_in_train_ids_with_19_for_ignored(tmp_path: Path) -> None:
    COPIES["cityscapes"](tmp_path)
    rewrite(tmp_path, "cityscapes", lambda mask: mask % 20)
    assert "train ids, not label ids" in refusal(check_benchmark("cityscapes", tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [("ade150", "the full ADE20K"), ("context60", "all 459 classes"), ("voc21", "does not have")],
)
def test_masks_with_too_many_classes(name: str, message: str, tmp_path: Path) -> None:
    if name.startswith("context"):
        pytest.importorskip("pycocotools")
    COPIES[name](tmp_path)
    check_benchmark(name, tmp_path)
    rewrite(tmp_path, name, lambda mask: mask + 400, form="16-bit")
    report = check_benchmark(name, tmp_path)
    assert message in refusal(report)
    assert min(report.strange_ids) >= 400


def test_a_mask_of_colours(name: str, tmp_path: Path) -> None:
    COPIES[name](tmp_path)
    check_benchmark(name, tmp_path)
    path = min((tmp_path / MASKS[name]).rglob("*.png"))
    Image.open(path).convert("RGB").save(path)
    assert "holds colours, not class ids" in refusal(check_benchmark(name, tmp_path))


def test_a_split_file_or_masks_are_missing(tmp_path: Path) -> None:
    copy_voc(tmp_path)
    (tmp_path / MASKS["voc21"] / "2007_000061.png").unlink()
    report = check_benchmark("voc21", tmp_path)
    assert report.n_found == 2
    assert "1 of 6 files are missing" in refusal(report)
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").unlink()
    assert "the split file is missing" in refusal(check_benchmark("voc21", tmp_path))


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    copy_voc(tmp_path)
    save_mask(tmp_path / MASKS["voc21"] / "2007_000061.png", np.zeros((2, 2)))
    assert "is 2 x 2 px, its image 3 x 5" in refusal(check_benchmark("voc21", tmp_path))


def test_a_sample_of_the_masks(tmp_path: Path) -> None:
    copy_voc(tmp_path)
    report = check_benchmark("voc21", tmp_path, n_masks=1)
    assert (report.n_masks_read, report.n_found) == (1, 3)
    assert check_benchmark("voc21", tmp_path, n_masks=None).n_masks_read == 3


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.jpg", (4, 6))
    save_mask(tmp_path / "masks" / "a.png", np.array([[0, 0, 0, 1, 1, 255]] * 4))
    report = check_benchmark("folder", tmp_path, labels="sky,road")
    report.require_usable()
    assert report.histogram == {"sky": 12, "road": 8, "(ignored)": 4}
    assert (report.warnings, report.n_expected) == ((), ())
    assert report.describe() == "1 images with masks; ignored ids: 255"
    assert report.class_table()[1] == [["0 sky", "1", "60.0%"], ["1 road", "1", "40.0%"]]
    assert "no class names" in refusal(check_benchmark("folder", tmp_path))
    assert "holds ids" in refusal(check_benchmark("folder", tmp_path, labels="sky"))


def test_too_many_classes_for_8_bits(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.jpg", (4, 6))
    save_mask(tmp_path / "masks" / "a.png", np.zeros((4, 6)))
    labels = [f"class {k}" for k in range(300)]
    report = check_benchmark("folder", tmp_path, labels=labels)
    assert "300 classes do not fit the 8 bits" in refusal(report)
    save_mask(tmp_path / "masks" / "a.png", np.full((4, 6), 299), form="16-bit")
    check_benchmark("folder", tmp_path, labels=labels).require_usable()


def test_an_unknown_benchmark(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no benchmark called 'imagenet'"):
        check_benchmark("imagenet", tmp_path)
