"""Every layout, in its real form, gives the same pairs; what fails in open_clip works here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pacl.data import opening
from pacl.data.pairs import Pairs
from pacl.data.saved import DatasetPairs
from pacl.errors import InputError


def open_pairs(place: str | Path, **keys: Any) -> Pairs | DatasetPairs:
    """Open what is no stream."""
    pairs = opening.open_pairs(place, **keys)
    assert isinstance(pairs, Pairs | DatasetPairs)
    return pairs


CAPTIONS = [["a red house", "a house by the sea"], ["two boats"], ["a tree", "a green tree"]]
NAMES = ["0.png", "1.png", "2.png"]
PAIRS = [(name, text) for name, texts in zip(NAMES, CAPTIONS, strict=True) for text in texts]
Write = Callable[[Path], Path | str]


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.full((6, 8, 3), 40 * number, dtype=np.uint8))


def encoded(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        picture(number).save(folder / name)
    return folder


def write_table(path: Path, delimiter: str = ",", prefix: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file, delimiter=delimiter)
        rows.writerow(["file_name", "text"])
        rows.writerows([[prefix + name, text] for name, text in PAIRS])
    return path


def as_csv(folder: Path) -> Path:
    write_images(folder / "images")
    return write_table(folder / "any.csv", prefix="images/")


def as_tsv(folder: Path) -> Path:
    return write_table(write_images(folder) / "any.tsv", "\t")


def as_jsonl(folder: Path) -> Path:
    path = write_images(folder) / "any.jsonl"
    records = zip(NAMES, CAPTIONS, strict=True)
    path.write_text("\n".join(json.dumps({"image": n, "caption": c}) for n, c in records))
    return path


def as_parquet(folder: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = write_images(folder) / "any.parquet"
    content = {"path": NAMES, "caption": CAPTIONS, "width": [8, 8, 8]}
    parquet.write_table(pyarrow.table(content), path)
    return path


def as_coco(folder: Path) -> Path:
    write_images(folder / "val2017")
    (folder / "annotations").mkdir()
    images = [{"id": 10 + k, "file_name": name} for k, name in enumerate(NAMES)]
    annotations = [
        {"id": k, "image_id": 10 + NAMES.index(name), "caption": text}
        for k, (name, text) in enumerate(PAIRS)
    ]
    path = folder / "annotations" / "captions_val2017.json"
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    return path


def as_coco_root(folder: Path) -> Path:
    path = as_coco(folder)
    path.rename(path.with_name("captions_train2017.json"))
    (folder / "val2017").rename(folder / "train2017")
    return folder


def as_imagefolder(folder: Path) -> Path:
    write_table(write_images(folder / "train") / "metadata.csv")
    return folder


def as_texts(folder: Path) -> Path:
    write_images(folder)
    for name, texts in zip(NAMES, CAPTIONS, strict=True):
        (folder / name).with_suffix(".txt").write_text("\n".join(texts) + "\n\n")
    return folder


def as_saved(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    images = [{"bytes": encoded(k), "path": None} for k in range(len(NAMES))]
    features = datasets.Features(
        {"image": datasets.Image(), "caption": datasets.List(datasets.Value("string"))}
    )
    data = datasets.Dataset.from_dict({"image": images, "caption": CAPTIONS}, features=features)
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(folder / "saved")
    return folder / "saved"


LAYOUTS: dict[str, Write] = {
    "CSV": as_csv,
    "TSV": as_tsv,
    "JSONL": as_jsonl,
    "Parquet": as_parquet,
    "COCO captions": as_coco,
    "COCO captions ": as_coco_root,
    "imagefolder, CSV": as_imagefolder,
    "image and text": as_texts,
    "saved datasets": as_saved,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_pairs_and_says_its_name(layout: str, tmp_path: Path) -> None:
    pairs = open_pairs(LAYOUTS[layout](tmp_path))
    assert [list(texts) for texts in pairs.captions] == CAPTIONS
    for row in range(len(pairs)):
        assert pairs.open_image(row).tobytes() == picture(row).tobytes()
    assert layout.strip() in pairs.summary()
    chosen = pairs.select([2, 0])
    assert [list(texts) for texts in chosen.captions] == [CAPTIONS[2], CAPTIONS[0]]
    assert chosen.open_image(0).tobytes() == picture(2).tobytes()
    assert chosen.fingerprint != pairs.fingerprint


def test_a_hub_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.load_from_disk(as_saved(tmp_path))
    monkeypatch.setattr(datasets, "load_dataset", {"owner/name": saved}.__getitem__)
    monkeypatch.chdir(tmp_path)
    pairs = open_pairs("owner/name")
    assert [list(texts) for texts in pairs.captions] == CAPTIONS
    assert "5 captions of 3 images from owner/name (hub data set" in pairs.summary()


def test_a_hub_data_set_without_network_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def fail(name: str) -> None:
        raise ConnectionError(f"no route to {name}")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(InputError, match=r"(?s)nor a data set of the hub: owner/name.*no route"):
        open_pairs("owner/name")


# ---- what open_clip's users ran into: issues 144, 789 and 1083; 640 ----------------------------


def test_a_comma_table_with_other_names_works_without_flags(tmp_path: Path) -> None:
    """open_clip: KeyError 'filepath', since it expects tabs and the columns filepath, title."""
    write_images(tmp_path)
    path = tmp_path / "train.csv"
    path.write_text("image,caption\n0.png,a red house\n")
    assert open_pairs(path).captions == [["a red house"]]
    path.write_text("filepath\ttitle\n0.png\ta red house\n")
    assert open_pairs(path).captions == [["a red house"]]


def test_the_form_of_custom_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_pairs(tmp_path)
    for word in ("captions.csv", "metadata.jsonl", "photo.txt", "*.tar", "file_name,caption"):
        assert word in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"images": [], "annotations": [{}]}'])
def test_a_json_that_is_no_coco_captions(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match="is not a COCO captions file"):
        open_pairs(path)


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR0" * 10)
    with pytest.raises(InputError, match="is not a Parquet file"):
        open_pairs(path)


def test_a_name_with_signs_of_a_pattern_is_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "photos [2020] {a}"
    folder.mkdir()
    write_images(folder)
    (folder / "captions.csv").write_text("file_name,caption\n0.png,a red house\n")
    for place in (folder, folder / "captions.csv"):
        assert open_pairs(place).captions == [["a red house"]]


def test_a_table_comes_before_a_tar_beside_it(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "captions.csv").write_text("file_name,caption\n0.png,a red house\n")
    (tmp_path / "left.tar").write_bytes(bytes(10240))
    assert open_pairs(tmp_path).captions == [["a red house"]]


def test_an_empty_caption_of_coco_is_counted(tmp_path: Path) -> None:
    write_images(tmp_path)
    images = [{"id": 1, "file_name": "0.png"}]
    captions = [{"image_id": 1, "caption": text} for text in (None, "a red house")]
    path = tmp_path / "captions_val.json"
    path.write_text(json.dumps({"images": images, "annotations": captions}))
    assert open_pairs(path).captions == [["a red house"]]


def test_a_row_without_image_is_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"image": [None], "caption": ["a red house"]}
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / "saved")
    pairs = open_pairs(tmp_path / "saved")
    with pytest.raises(InputError, match=r"the image of row 0 of .* is missing"):
        pairs.open_image(0)


def test_a_missing_folder_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="no such file or folder: data/coco"):
        open_pairs("data/coco")
