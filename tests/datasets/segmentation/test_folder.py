from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacl.datasets.segmentation.folder import FolderDataset
from pacl.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images (a JPEG, a PNG) of 6 x 4 px with masks of the ids 0, 1 and 9; no class names."""
    root = tmp_path / "streets"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(root / "images" / "b.jpg")
    Image.new("RGB", (6, 4)).save(root / "images" / "a.png")
    for name in ("a", "b"):
        save_mask(root, name, [[0, 0, 0, 1, 1, 9]] * 4)
    return root


def save_mask(root: Path, name: str, ids: list[list[int]]) -> None:
    Image.fromarray(np.array(ids, dtype=np.uint8)).save(root / "masks" / f"{name}.png")


def write_classes(root: Path, content: object) -> None:
    (root / "classes.json").write_text(json.dumps(content))


def test_images_and_masks_are_matched_by_name(root: Path) -> None:
    (root / "images" / "notes.md").write_text("not an image")
    write_classes(root, {"labels": ["sky", "road"], "ignore": [9]})
    dataset = FolderDataset(root)
    assert len(dataset) == 2
    assert [(i.image_path.name, i.mask_path.name) for i in dataset] == [
        ("a.png", "a.png"),
        ("b.jpg", "b.png"),
    ]
    assert dataset.labels.names == ("sky", "road")
    np.testing.assert_array_equal(dataset.read_mask(dataset.items[0]), [[0, 0, 0, 1, 1, 255]] * 4)


def test_where_class_names_come_from(root: Path) -> None:
    (root / "classes.txt").write_text("ground\nwall\n")
    assert FolderDataset(root).labels.names == ("ground", "wall")
    write_classes(root, ["sky", "road"])
    assert FolderDataset(root).labels.names == ("sky", "road")
    assert FolderDataset(root).ignore_labels == (255,)
    dataset = FolderDataset(root, labels="a,b", ignore_labels=[9])
    assert (dataset.labels.names, dataset.ignore_labels) == (("a", "b"), (9,))


def test_no_class_names(root: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)no class names for .*'streets'.*camvid.*fix:"):
        FolderDataset(root)
    renamed = root.rename(root.parent / "CamVid")
    dataset = FolderDataset(renamed)
    assert dataset.labels.names[:4] == ("sky", "building", "pole", "road")
    assert (len(dataset.labels), dataset.ignore_labels) == (11, (11,))


@pytest.mark.parametrize("content", ["{", '{"labels": ["a"], "ignore": 3}'])
def test_damaged_class_names(root: Path, content: str) -> None:
    (root / "classes.json").write_text(content)
    with pytest.raises(InputError, match=r"classes\.json"):
        FolderDataset(root)


def test_an_id_that_is_no_class(root: Path) -> None:
    dataset = FolderDataset(root, labels=["sky", "road"])
    with pytest.raises(InputError, match=r"(?s)a\.png has ids that are no class: 9.*ids 0 to 1"):
        dataset.read_mask(dataset.items[0])


def test_many_classes_have_another_ignore_label(root: Path) -> None:
    labels = [f"class {k}" for k in range(300)]
    dataset = FolderDataset(root, labels=labels, ignore_labels=[9])
    assert dataset.ignore_label == 65535
    assert dataset.read_mask(dataset.items[0]).max() == 65535


def test_a_mask_of_another_size(root: Path) -> None:
    save_mask(root, "b", [[0, 0, 0]] * 6)
    with pytest.raises(InputError, match=r"mask .*b\.png is 3 x 6 px, its image 6 x 4"):
        FolderDataset(root, labels="sky,road")


def test_an_upright_mask_fits_a_turned_photo(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 6)).save(root / "images" / "b.jpg", exif=exif)
    assert len(FolderDataset(root, labels="sky,road")) == 2


def test_a_mask_of_colours(root: Path) -> None:
    Image.new("RGB", (6, 4)).save(root / "masks" / "a.png")
    dataset = FolderDataset(root, labels="sky,road")
    with pytest.raises(InputError, match="holds colours, not class ids"):
        dataset.read_mask(dataset.items[0])


def test_missing_masks_images_and_folders(root: Path, tmp_path: Path) -> None:
    (root / "masks" / "b.png").unlink()
    with pytest.raises(InputError, match=r"(?s)1 of 2 images have no mask.*b\.png"):
        FolderDataset(root, labels="sky,road")
    for path in (root / "images").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no images in"):
        FolderDataset(root, labels="sky,road")
    with pytest.raises(InputError, match=r"(?s)no folder .*images.*lay the data out"):
        FolderDataset(tmp_path / "nowhere", labels="sky,road")


def test_real_masks(camvid: Path) -> None:
    dataset = FolderDataset(camvid)
    assert len(dataset) == 117
    for item in dataset.items[:3]:
        mask = dataset.read_mask(item)
        assert mask.shape == (360, 480)
        assert set(np.unique(mask)) <= {*range(11), 255}
