"""Every format, read back by the programs it is for, is the same mask, pixel for pixel."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pacl.data.sources import Source
from pacl.errors import InputError
from pacl.results import FORMATS, Segmentation
from pacl.results.folder import OutputFolder
from pacl.results.writers.coco import CocoWriter
from pacl.results.writers.cvat import number_objects
from pacl.results.writers.label_studio import encode_brush

ODD_NAMES = ("a, b", 'it\'s "so"', "Straße & <Übung>", "🚗 auto", "猫")


def _draw(shape: tuple[int, int], *boxes: tuple[int, int, int, int, int]) -> np.ndarray:
    label_map = np.zeros(shape, dtype=np.int32)
    for number, top, left, bottom, right in boxes:
        label_map[top:bottom, left:right] = number
    return label_map


CASES = {
    "disconnected": _draw((20, 30), (1, 0, 0, 5, 8), (1, 10, 20, 20, 30), (3, 7, 0, 9, 30)),
    "holes": _draw((9, 20), (2, 1, 2, 8, 18), (0, 2, 4, 7, 9), (1, 4, 6, 5, 8), (0, 4, 11, 7, 12)),
    "ones": _draw((9, 7), (1, 0, 0, 1, 1), (2, 8, 6, 9, 7), (5, 4, 3, 5, 4), (4, 5, 4, 6, 5)),
    "noise": np.random.default_rng(0).integers(0, 4, (21, 23), dtype=np.int32),
    "1 x 1": np.full((1, 1), 5, dtype=np.int32),
    "nothing": np.zeros((4, 6), dtype=np.int32),
}  # fmt: skip
MANY = np.arange(301, dtype=np.int32).repeat(3)[: 43 * 21].reshape(43, 21)


def result_of(label_map: np.ndarray, *, n_labels: int = 5, name: str = "a b.png") -> Segmentation:
    names = ODD_NAMES[:n_labels] + tuple(f"class {k}" for k in range(5, n_labels))
    rng = np.random.default_rng(1)
    return Segmentation(
        image=Image.fromarray(rng.integers(0, 256, (*label_map.shape, 3), dtype=np.uint8)),
        labels=names,
        label_map=label_map,
        scores=rng.random(label_map.shape, dtype=np.float32),
        class_scores=rng.random((n_labels, 2, 2), dtype=np.float32),
        source=f"photos/{name}",
    )


@pytest.fixture(params=[*CASES, "300 classes"])
def result(request: pytest.FixtureRequest) -> Segmentation:
    if request.param == "300 classes":
        return result_of(MANY, n_labels=300)
    return result_of(CASES[request.param])


@pytest.mark.parametrize("name", ["coco", "coco-polygons"])
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own
def test_coco_by_pycocotools(
    result: Segmentation, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO(result.save(tmp_path, formats=[name])[name])
    capsys.readouterr()
    [image] = coco.loadImgs(coco.getImgIds())
    assert image["file_name"] == "a b.png"
    assert tuple(c["name"] for c in coco.loadCats(coco.getCatIds())) == result.labels
    back = np.zeros((image["height"], image["width"]), dtype=np.int32)
    for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
        mask = coco.annToMask(annotation).astype(bool)
        assert not back[mask].any()
        assert mask.sum() == annotation["area"]
        back[mask] = annotation["category_id"]
    assert np.array_equal(back, result.label_map)


def test_panoptic(result: Segmentation, tmp_path: Path) -> None:
    path = result.save(tmp_path, formats=["panoptic"])["panoptic"]
    content = json.loads((tmp_path / "panoptic.json").read_text("utf-8"))
    [annotation] = content["annotations"]
    assert path == tmp_path / "panoptic" / annotation["file_name"]
    with Image.open(path) as image:
        numbers = np.asarray(image.convert("RGB")).astype(np.int32) @ [1, 256, 65536]
    segments = annotation["segments_info"]
    assert {segment["id"] for segment in segments} == set(np.unique(numbers)) - {0}
    back = np.zeros_like(numbers)
    for segment in segments:
        mask = numbers == segment["id"]
        rows, columns = np.nonzero(mask)
        left, top, width, height = segment["bbox"]
        assert (mask.sum(), left, top) == (segment["area"], columns.min(), rows.min())
        assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
        back[mask] = segment["category_id"]
    assert np.array_equal(back, result.label_map)
    assert tuple(each["name"] for each in content["categories"]) == result.labels


def test_cvat_by_datumaro(result: Segmentation, tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro")
    if len(np.unique(result.label_map)) > 255:
        with pytest.raises(InputError, match="255 labels in an image"):
            result.save(tmp_path, formats=["cvat"])
        return
    path = result.save(tmp_path, formats=["cvat"])["cvat"]
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "unpacked")
    dataset = datumaro.Dataset.import_from(str(tmp_path / "unpacked"), "voc_segmentation")
    names = [each.name for each in dataset.categories()[datumaro.AnnotationType.label]]
    assert names == ["background", *result.labels]
    [item] = list(dataset)
    assert item.id == "a b"
    back = np.zeros_like(result.label_map)
    for annotation in item.annotations:
        mask = np.asarray(annotation.image).astype(bool)
        assert annotation.label > 0
        assert mask.any()
        back[mask] = annotation.label
    assert np.array_equal(back, result.label_map)
    assert len(item.annotations) == len(np.unique(number_objects(result.label_map))) - (
        0 in result.label_map
    )


@pytest.mark.parametrize("label", ["a: b", "#a", "Background", " a"])
def test_cvat_refuses_names_that_break_its_file(label: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot hold the label"):
        replace(result_of(CASES["ones"]), labels=(label, *"bcde")).save(tmp_path, formats=["cvat"])


def test_cvat_lists_of_many_labels_those_in_the_images(tmp_path: Path) -> None:
    label_map = np.zeros((4, 5), dtype=np.int16)
    label_map[0, 1:], label_map[2:] = 299, 7
    result = result_of(label_map, n_labels=300)
    path = result.save(tmp_path, formats=["cvat"])["cvat"]
    with zipfile.ZipFile(path) as file:
        lines = file.read("labelmap.txt").decode().splitlines()
        [name] = [name for name in file.namelist() if name.startswith("SegmentationClass/")]
        pixels = np.asarray(Image.open(file.open(name)).convert("RGB"))
    fields = [line.split(":") for line in lines[1:]]
    colours = {tuple(map(int, colour.split(","))): name for name, colour, *_ in fields}
    assert list(colours.values()) == ["background", result.labels[6], result.labels[298]]
    assert colours[tuple(pixels[0, 1])] == result.labels[298]
    assert colours[tuple(pixels[3, 4])] == result.labels[6]
    assert colours[tuple(pixels[0, 0])] == "background"


def test_cvat_by_its_own_files(result: Segmentation, tmp_path: Path) -> None:
    if len(np.unique(result.label_map)) > 255:
        return
    with zipfile.ZipFile(result.save(tmp_path, formats=["cvat"])["cvat"]) as file:
        lines = file.read("labelmap.txt").decode().splitlines()[1:]
        assert file.read("ImageSets/Segmentation/default.txt").decode() == "a b\n"
        classes, objects = (
            np.asarray(Image.open(file.open(f"Segmentation{kind}/a b.png"))).astype(int)
            for kind in ("Class", "Object")
        )
    colours = [tuple(map(int, line.split(":")[1].split(","))) for line in lines]
    assert len(set(colours)) == len(colours) == len(result.labels) + 1
    assert [line.split(":")[0] for line in lines] == ["background", *result.labels]
    back = np.full(result.label_map.shape, -1)
    for number, colour in enumerate(colours):
        back[(classes == colour).all(axis=-1)] = number
    assert np.array_equal(back, result.label_map)
    assert np.array_equal(objects.any(axis=-1), result.label_map > 0)


def test_cvat_objects_are_at_most_255_and_of_one_label() -> None:
    label_map = np.random.default_rng(0).integers(0, 7, (60, 60), dtype=np.int32)
    objects = number_objects(label_map)
    assert objects.max() == 255
    assert np.array_equal(objects > 0, label_map > 0)
    for number in range(1, 256):
        assert len(np.unique(label_map[objects == number])) == 1


def test_cvat_refuses_names_that_break_its_table(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, ["cvat"])
    with pytest.raises(InputError, match="a:b"):
        folder.claim({"labels": {"a:b": ["x"]}}, may_replace=False)


@pytest.mark.parametrize("name", ["label-studio", "label-studio-brush"])
def test_label_studio(result: Segmentation, name: str, tmp_path: Path) -> None:
    path = result.save(tmp_path, formats=[name])[name]
    config = (tmp_path / f"{name}.xml").read_text("utf-8")
    shown = ElementTree.fromstring(config)[1]
    assert tuple(label.attrib["value"] for label in shown) == result.labels
    [task] = json.loads(path.read_text("utf-8"))
    assert task["data"]["image"] == "/data/local-files/?d=photos/a%20b.png"
    [prediction] = task["predictions"]
    back = np.zeros_like(result.label_map)
    for region in prediction["result"]:
        [label] = region["value"][region["type"]]
        size = region["original_height"], region["original_width"]
        mask = _read_region(region["value"], size)
        assert not back[mask].any()
        back[mask] = result.labels.index(label) + 1
    assert np.array_equal(back, result.label_map)


def _read_region(value: dict, size: tuple[int, int]) -> np.ndarray:
    if "rle" in value:
        pixels = np.array(_read_brush(value["rle"])).reshape(*size, 4)
        assert (pixels == pixels[..., :1]).all()
        return pixels[..., 3] == 255
    head, _, data = value["imageDataURL"].partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert pixels.shape[:2] == size
    assert not pixels[..., :3].any()
    return pixels[..., 3] == 255


def _read_brush(rle: list[int]) -> list[int]:
    """Read Label Studio's run lengths bit by bit."""
    bits, place = "".join(f"{byte:08b}" for byte in rle), 0

    def read(n_bits: int) -> int:
        nonlocal place
        place += n_bits
        return int(bits[place - n_bits : place], 2)

    n_values, value_bits = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < n_values:
        is_run, length = read(1), read(sizes[read(2)]) + 1
        values += (
            [read(value_bits)] * length if is_run else [read(value_bits) for _ in range(length)]
        )
    assert len(bits) - place < 8
    return values


def test_brush_is_read_alike_by_label_studio(result: Segmentation) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    for number in np.unique(result.label_map)[:20]:
        rle = encode_brush(result.label_map == number)
        assert brush.decode_rle(rle).tolist() == _read_brush(rle)


@pytest.mark.parametrize("name", ["label-studio", "label-studio-brush"])
def test_label_studio_takes_config_and_prediction(name: str, tmp_path: Path) -> None:
    sdk = pytest.importorskip("label_studio_sdk.label_interface")
    path = result_of(CASES["holes"]).save(tmp_path, formats=[name])[name]
    interface = sdk.LabelInterface((tmp_path / f"{name}.xml").read_text("utf-8"))
    interface.validate()
    [task] = json.loads(path.read_text("utf-8"))
    [prediction] = task.pop("predictions")
    assert interface.validate_task(task)
    assert interface.validate_prediction(prediction, return_errors=True) == []


@pytest.mark.parametrize(("name", "shift"), [("ultralytics", -1), ("lightly", 0)])
def test_data_sets_to_train_on(result: Segmentation, name: str, shift: int, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    if len(result.labels) > 255:
        with pytest.raises(InputError, match="not 300"):
            result.save(tmp_path, formats=[name])
        return
    path = result.save(tmp_path, formats=[name])[name]
    content = yaml.safe_load((tmp_path / name / "data.yaml").read_text("utf-8"))
    if name == "ultralytics":
        images, names = tmp_path / name / content["train"], content["names"]
        masks = Path(str(images).replace("images", content["masks_dir"]))
        none = 255
    else:
        images, masks = (Path(content["train"][kind]) for kind in ("images", "masks"))
        names, none = content["classes"], 0
        assert content["ignore_classes"] == [none]
        assert names.pop(0) == "none"
    assert tuple(names.values()) == result.labels
    [image_path], [mask_path] = list(images.iterdir()), list(masks.iterdir())
    assert mask_path == path
    assert image_path.stem == mask_path.stem
    with Image.open(mask_path) as image:
        numbers = np.asarray(image).astype(np.int32)
    assert np.array_equal(np.where(numbers == none, 0, numbers - shift), result.label_map)
    with Image.open(image_path) as image:
        assert image.size == result.image.size


def test_masks_by_datasets_and_npz_by_numpy(result: Segmentation, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    paths = result.save(tmp_path, formats=["masks", "npz", "png"])
    files = sorted(paths["masks"].iterdir())
    back = np.zeros_like(result.label_map)
    if files:
        table = datasets.Dataset.from_dict({"mask": [*map(str, files)]})
        for path, row in zip(files, table.cast_column("mask", datasets.Image()), strict=True):
            back[np.asarray(row["mask"]) == 255] = int(path.name[:3])
    assert np.array_equal(back, result.label_map)
    with np.load(paths["npz"]) as arrays:
        assert np.array_equal(arrays["label_map"], result.label_map)
        assert tuple(arrays["labels"]) == result.labels
    table = datasets.Dataset.from_dict({"png": [str(paths["png"])]})
    read = np.asarray(table.cast_column("png", datasets.Image())[0]["png"])
    assert np.array_equal(read, result.label_map)


def test_heatmaps_are_of_every_label(tmp_path: Path) -> None:
    result = result_of(CASES["holes"])
    files = sorted(result.save(tmp_path, formats=["heatmaps"])["heatmaps"].iterdir())
    assert [path.name for path in files] == [
        "001_a-b.png", "002_it-s-so.png", "003_Straße-Übung.png", "004_auto.png", "005_猫.png",
    ]  # fmt: skip
    with Image.open(files[1]) as image:
        assert np.array_equal(np.asarray(image), np.asarray(result.heatmap(result.labels[1])))
    result = replace(result, candidates=(4, 0))
    files = sorted(result.save(tmp_path, formats=["heatmaps"])["heatmaps"].iterdir())
    assert [path.name[:3] for path in files] == ["001", "005"]


@pytest.mark.parametrize(
    "result", [*CASES, pytest.param("300 classes", marks=pytest.mark.slow)], indirect=True
)
def test_pictures_to_look_at_are_drawn_of_anything(result: Segmentation, tmp_path: Path) -> None:
    paths = result.save(tmp_path, formats=["overlay", "json"])
    with Image.open(paths["overlay"]) as image:
        assert image.size == result.image.size
    last_five = replace(result, candidates=tuple(range(len(result.labels)))[-5:])
    heatmaps = last_five.save(tmp_path, formats=["heatmaps"], stem="last")["heatmaps"]
    assert len(list(heatmaps.iterdir())) == 5
    summary = json.loads(paths["json"].read_text("utf-8"))
    assert [each["label"] for each in summary["labels"]] == list(result.labels)


# Files for the whole folder.


def _iter_results() -> Iterator[tuple[Source, Segmentation]]:
    for k, label_map in enumerate(CASES.values()):
        found = result_of(label_map, name=f"{k}/x.png")
        yield Source(str(found.source), lambda: Image.new("RGB", (1, 1))), found


SETTINGS = {"labels": {name: [name] for name in ODD_NAMES}}
WHOLE = ("coco", "panoptic", "cvat", "label-studio", "ultralytics", "lightly")


def _content(folder: Path) -> dict[str, object]:
    """Every file, unpacked where it has times in it."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as file:
                found[path.name] = {name: file.read(name) for name in file.namelist()}
        elif path.is_file() and path.name not in ("pictures.jsonl", "data.yaml"):
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def _run(folder: OutputFolder, *, upto: int = 99, mine: slice = slice(None)) -> None:
    folder.claim(SETTINGS, may_replace=False)
    todo = [(source, found) for source, found in _iter_results() if not folder.has(source)]
    for source, found in todo[mine][:upto]:
        folder.save(found, source.name)


def test_an_interrupted_folder_is_completed(tmp_path: Path) -> None:
    whole = OutputFolder(tmp_path / "whole", WHOLE)
    _run(whole)
    whole.close([])
    _run(OutputFolder(tmp_path / "cut", WHOLE), upto=2)  # and killed
    assert not (tmp_path / "cut" / "coco.json").exists()
    _run(OutputFolder(tmp_path / "cut", WHOLE))  # killed before the folder is closed
    last = OutputFolder(tmp_path / "cut", WHOLE)
    _run(last)  # nothing is left to do
    last.close([])
    assert _content(tmp_path / "cut") == _content(tmp_path / "whole")
    coco = json.loads((tmp_path / "cut" / "coco.json").read_text("utf-8"))
    assert [each["file_name"] for each in coco["images"]] == [
        f"{k}/x.png" for k in (1, 2, 3, 4, 5, 0)
    ]
    assert [each["id"] for each in coco["annotations"]] == [*range(1, 1 + len(coco["annotations"]))]


def test_two_shards_are_the_union_of_one(tmp_path: Path) -> None:
    whole = OutputFolder(tmp_path / "whole", WHOLE)
    _run(whole)
    whole.close([])
    folders = [OutputFolder(tmp_path / "both", WHOLE, shard=(k, 2)) for k in range(2)]
    for k, folder in enumerate(folders):
        folder.claim(SETTINGS, may_replace=False)
        for number, (source, found) in enumerate(_iter_results()):
            if not folder.has(source) and number % 2 == k:
                folder.save(found, source.name)
    for folder in folders:
        folder.close([])
    assert _content(tmp_path / "both") == _content(tmp_path / "whole")
    index = [tmp_path / name / "pictures.jsonl" for name in ("both", "whole")]
    assert len({"".join(sorted(path.read_text().splitlines())) for path in index}) == 1


def test_a_shard_ends_a_line_that_was_cut_off(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, ["png"])
    _run(folder, upto=2)
    index = tmp_path / "pictures.jsonl"
    index.write_text(index.read_text()[:-5])
    shard = OutputFolder(tmp_path, ["png"], shard=(0, 2))
    _run(shard)
    lines = index.read_text().splitlines()
    assert len(lines) == len(CASES) + 1
    assert len(
        dict.fromkeys(json.loads(line)["source"] for k, line in enumerate(lines) if k != 1)
    ) == len(CASES)


def test_a_folder_is_finished_again_where_others_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = (OutputFolder(tmp_path, ["coco"], shard=(k, 2)) for k in range(2))
    for each in (folder, other):
        each.claim(SETTINGS, may_replace=False)
    (source, found), (second, late), *_ = _iter_results()
    assert not other.has(source)  # every process looks at all sources
    folder.save(found, source.name)
    close = CocoWriter.close

    def close_late(writer: CocoWriter) -> None:
        close(writer)
        if not other.has(second):
            other.save(late, second.name)

    monkeypatch.setattr(CocoWriter, "close", close_late)
    folder.close([])
    assert len(json.loads((tmp_path / "coco.json").read_text("utf-8"))["images"]) == 2


def test_other_labels_leave_no_old_parts(tmp_path: Path) -> None:
    result_of(CASES["holes"]).save(tmp_path, formats=["coco"], stem="old")
    result_of(MANY, n_labels=300).save(tmp_path, formats=["coco"], stem="new")
    assert len(json.loads((tmp_path / "coco.json").read_text("utf-8"))["images"]) == 1
    result_of(MANY, n_labels=300).save(tmp_path, formats=["coco"], stem="newer")
    assert len(json.loads((tmp_path / "coco.json").read_text("utf-8"))["images"]) == 2


def test_every_format_is_tested_here() -> None:
    assert set(FORMATS) == {
        "png", "overlay", "json", "npz", "masks", "heatmaps", "coco", "coco-polygons", "panoptic",
        "cvat", "label-studio", "label-studio-brush", "ultralytics", "lightly",
    }  # fmt: skip
