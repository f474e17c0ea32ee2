from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import references
from benchmark_copies import COPIES, copy_coco, copy_context, copy_voc, save_mask
from pacl.datasets import segmentation as benchmarks
from pacl.datasets.segmentation.coco import GAPS
from pacl.datasets.segmentation.context import NAME_OF_DETAIL_ID
from pacl.errors import EnvironmentProblem, InputError
from pacl.evaluation.metrics.segmentation import ConfusionMatrix
from pacl.text.labels import parse_labels

N_CLASSES = {
    "voc20": 20,
    "voc21": 21,
    "context59": 59,
    "context60": 60,
    "coco-object": 81,
    "coco-stuff171": 171,
    "ade150": 150,
    "cityscapes": 19,
}
CITYSCAPES_TRAIN_IDS = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10,
                        24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}  # fmt: skip


@pytest.fixture(params=N_CLASSES)
def name(request: pytest.FixtureRequest) -> str:
    if request.param.startswith("context"):
        pytest.importorskip("pycocotools")
    return request.param


def expected_class(name: str, raw: int) -> int:
    """One pixel, by the rule of protocols in words: 255 is ignored."""
    if name in ("voc20", "context59", "ade150"):  # reduce zero label
        raw = 255 if raw == 0 else raw
        raw = raw - 1
        return 255 if raw == 254 else raw
    if name == "cityscapes":
        return CITYSCAPES_TRAIN_IDS.get(raw, 255)
    if name == "coco-object":
        return 0 if raw > 90 else raw + 1 - sum(gap < raw for gap in GAPS)
    if name == "coco-stuff171":
        return 255 if raw == 255 else raw - sum(gap < raw for gap in GAPS)
    return raw  # voc21, context60


def test_the_names(name: str) -> None:
    assert tuple(N_CLASSES) == benchmarks.NAMES
    benchmark = benchmarks.find_benchmark(name)
    assert len(benchmark.class_names) == N_CLASSES[name]
    assert sorted(set(benchmark.class_of_raw.values()) - {-1}) == list(range(N_CLASSES[name]))
    assert benchmark.has_background == (name in ("voc21", "context60", "coco-object"))
    plain = {each: benchmark.synonyms.get(each, (each,)) for each in benchmark.class_names}
    assert len(parse_labels(plain)) == N_CLASSES[name]  # no word stands for two classes
    assert not any("-" in each or each != each.strip() for each in benchmark.class_names)


def test_every_synonym_belongs_to_a_class() -> None:
    for benchmark in benchmarks.BENCHMARKS:
        assert set(benchmark.synonyms) <= set(benchmark.class_names), benchmark.name


@pytest.mark.parametrize(
    ("name", "class_id", "class_name"),
    [
        ("voc20", 19, "tv monitor"),
        ("voc21", 15, "person"),
        ("context60", 59, "wood"),
        ("context59", 36, "person"),
        ("coco-object", 80, "toothbrush"),
        ("coco-stuff171", 80, "banner"),
        ("coco-stuff171", 170, "wood"),
        ("ade150", 20, "car"),
        ("ade150", 103, "ship"),
        ("ade150", 149, "flag"),
        ("cityscapes", 18, "bicycle"),
    ],
)
def test_a_class_of_known_id(name: str, class_id: int, class_name: str) -> None:
    assert benchmarks.find_benchmark(name).class_names[class_id] == class_name


@pytest.mark.parametrize(
    ("name", "raw", "class_name"),
    [
        # 1-based in ADE20K's objectInfo150
        *(("ade150", raw, class_name) for raw, class_name in [
            (1, "wall"), (9, "window"), (13, "person"), (28, "mirror"), (44, "signboard"),
            (59, "screen door"), (60, "stairway"), (64, "blind"), (77, "boat"), (83, "light"),
            (88, "street light"), (106, "conveyor belt"), (108, "washing machine"), (109, "toy"),
            (117, "minibike"), (122, "step"), (124, "brand name"), (126, "flowerpot"),
            (131, "projection screen"), (134, "exhaust hood"), (139, "trash can"),
            (142, "crt screen"), (148, "drinking glass"), (150, "flag"),
        ]),
        # one less than in COCO-Stuff's labels.txt, where 0 is "unlabeled"
        *(("coco-stuff171", raw, class_name) for raw, class_name in [
            (0, "person"), (12, "stop sign"), (26, "backpack"), (45, "wine glass"),
            (66, "dining table"),
            (69, "toilet"), (83, "book"), (89, "toothbrush"), (91, "banner"), (101, "ceiling"),
            (102, "tile ceiling"), (113, "marble floor"), (117, "wood floor"), (122, "furniture"),
            (144, "playing field"), (156, "sky"), (159, "solid material"), (163, "structure"),
            (170, "brick wall"), (172, "wall"), (176, "wood wall"), (178, "water drops"),
            (179, "window blind"), (181, "wood"),
        ]),
        ("coco-object", 89, "toothbrush"),
        ("coco-object", 170, "background"),
        ("context60", 45, "sidewalk"),
        ("context60", 55, "tv monitor"),
        ("cityscapes", 21, "vegetation"),
        ("cityscapes", 31, "train"),
    ],
)  # fmt: skip
def test_a_raw_id_of_the_official_lists(name: str, raw: int, class_name: str) -> None:
    benchmark = benchmarks.find_benchmark(name)
    assert benchmark.class_names[benchmark.class_of_raw[raw]] == class_name


def test_ids_ignore_rules_and_counts(name: str, tmp_path: Path) -> None:
    raw_masks = COPIES[name](tmp_path)
    dataset = benchmarks.load_benchmark(name, tmp_path)
    assert len(dataset) == len(dataset.items) == len(list(dataset)) == 3
    assert (dataset.ignore_label, dataset.ignore_labels) == (255, (255,))
    for item, raw in zip(dataset, raw_masks, strict=True):
        expected = [[expected_class(name, int(value)) for value in row] for row in raw]
        np.testing.assert_array_equal(dataset.read_mask(item), expected)
    if name == "coco-object":
        assert (dataset.read_mask(dataset.items[2]) == 0).all()  # raw 255 is scored
    elif not name.startswith("context60"):
        assert (dataset.read_mask(dataset.items[2]) == 255).all()


def test_scores_equal_brute_force(name: str, tmp_path: Path) -> None:
    COPIES[name](tmp_path)
    dataset = benchmarks.load_benchmark(name, tmp_path)
    n_classes = len(dataset.labels)
    random = np.random.default_rng(0)
    targets = [dataset.read_mask(item) for item in dataset]
    predictions = [random.integers(-1, n_classes, mask.shape) for mask in targets]
    for prediction, target in zip(predictions, targets, strict=True):
        is_right = (random.random(target.shape) < 0.6) & (target != 255)
        prediction[is_right] = target[is_right]
    matrix = ConfusionMatrix(n_classes, ignore_label=dataset.ignore_label)
    for prediction, target in zip(predictions, targets, strict=True):
        matrix.update(prediction, target)

    iou = references.iou(
        [torch.from_numpy(each) for each in predictions],
        [torch.from_numpy(each) for each in targets],
        n_classes,
        [255],
    )
    pixels = [
        (int(true), int(predicted))
        for target, prediction in zip(targets, predictions, strict=True)
        for true, predicted in zip(target.flat, prediction.flat, strict=True)
        if true != 255
    ]
    found = {c: [p == t for t, p in pixels if t == c] for c in range(n_classes)}
    recalls = [sum(hits) / len(hits) for hits in found.values() if hits]
    scored = [each for each in iou if not math.isnan(each)]
    np.testing.assert_allclose(matrix.iou().numpy(), iou, atol=1e-12, rtol=0)
    assert matrix.mean_iou() == pytest.approx(sum(scored) / len(scored), abs=1e-12)
    assert matrix.pixel_accuracy() == pytest.approx(
        sum(t == p for t, p in pixels) / len(pixels), abs=1e-12
    )
    assert matrix.mean_accuracy() == pytest.approx(sum(recalls) / len(recalls), abs=1e-12)


def test_the_truth_scores_1(tmp_path: Path) -> None:
    masks = copy_voc(tmp_path)
    dataset = benchmarks.load_benchmark("voc21", tmp_path)
    matrix = ConfusionMatrix(21, ignore_label=dataset.ignore_label)
    for mask, item in zip(masks, dataset, strict=True):
        matrix.update(np.where(mask == 255, 0, mask), dataset.read_mask(item))
    assert (matrix.mean_iou(), matrix.pixel_accuracy()) == (1.0, 1.0)


def test_roots_that_are_accepted(tmp_path: Path) -> None:
    copy_voc(tmp_path)
    for root in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit" / "VOC2012"):
        assert len(benchmarks.load_benchmark("voc20", root)) == 3


def test_a_wrong_root_says_where_it_looked(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)no .* in .*looked for .*fix: .*download"):
        benchmarks.load_benchmark(name, tmp_path)
    with pytest.raises(InputError, match=r"no folder .*nowhere"):
        benchmarks.load_benchmark(name, tmp_path / "nowhere")


def test_an_unknown_benchmark(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)'voc'.*voc20, voc21"):
        benchmarks.load_benchmark("voc", tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    copy_voc(tmp_path)
    base = tmp_path / "VOCdevkit" / "VOC2012"
    (base / "SegmentationClass" / "2007_000042.png").unlink()
    with pytest.raises(InputError, match=r"(?s)1 of 6 files are missing.*2007_000042\.png"):
        benchmarks.load_benchmark("voc21", tmp_path)
    split = base / "ImageSets" / "Segmentation" / "val.txt"
    split.write_text("")
    with pytest.raises(InputError, match=r"split file .* is empty"):
        benchmarks.load_benchmark("voc21", tmp_path)
    split.unlink()
    with pytest.raises(InputError, match=r"(?s)the split file is missing: .*val\.txt.*VOCtrainval"):
        benchmarks.load_benchmark("voc21", tmp_path)


def test_a_mask_with_a_strange_id_or_size(tmp_path: Path) -> None:
    copy_voc(tmp_path)
    dataset = benchmarks.load_benchmark("voc21", tmp_path)
    item = dataset.items[0]
    for raw in (21, 300):
        save_mask(item.mask_path, np.full((11, 17), raw), form="16-bit")
        with pytest.raises(InputError, match=f"2007_000033.png holds ids .*: {raw}"):
            dataset.read_mask(item)
    save_mask(item.mask_path, np.zeros((17, 11)))
    with pytest.raises(InputError, match="is 11 x 17 px, its image 17 x 11"):
        dataset.read_mask(item)


def test_only_converted_coco_masks(tmp_path: Path) -> None:
    copy_coco(tmp_path)
    for path in (tmp_path / "coco_stuff164k" / "annotations" / "val2017").iterdir():
        path.rename(path.with_name(f"{path.stem}_labelTrainIds.png"))
    with pytest.raises(InputError, match=r"(?s)another tool has converted.*original pixel maps"):
        benchmarks.load_benchmark("coco-stuff171", tmp_path)


def test_context_is_converted_once(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    assert len(NAME_OF_DETAIL_ID) == 59
    assert list(NAME_OF_DETAIL_ID) == sorted(NAME_OF_DETAIL_ID)
    copy_context(tmp_path)
    base = tmp_path / "VOCdevkit" / "VOC2010"
    dataset = benchmarks.load_benchmark("context60", tmp_path)
    split = base / "ImageSets" / "SegmentationContext" / "val.txt"
    assert split.read_text().split() == ["2008_000006", "2008_000008", "2008_000009"]
    assert not list(base.glob("*.unfinished"))
    (base / "trainval_merged.json").unlink()  # no longer needed
    assert benchmarks.load_benchmark("context59", tmp_path).items == dataset.items


def test_context_without_annotations_or_pycocotools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_context(tmp_path)
    base = tmp_path / "VOCdevkit" / "VOC2010"
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(EnvironmentProblem, match="fix: pip install pycocotools"):
        benchmarks.load_benchmark("context59", tmp_path)
    assert not (base / "SegmentationClassContext").exists()
    (base / "trainval_merged.json").write_text('{"images": 3}')
    with pytest.raises(InputError, match="is not the Detail challenge's"):
        benchmarks.load_benchmark("context59", tmp_path)
    (base / "trainval_merged.json").unlink()
    with pytest.raises(InputError, match="the annotations' file is missing"):
        benchmarks.load_benchmark("context59", tmp_path)
