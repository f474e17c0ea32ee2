"""The classification sets: layouts, classes, counts, and one clear error for what is wrong."""

from __future__ import annotations

import builtins
import shutil
from pathlib import Path

import numpy as np
import pytest

from classification_copies import (
    COPIES,
    CRANE,
    GOLDFISH,
    N_TRAIN,
    SYNSET_NAMES,
    cifar_planes,
    copy_caltech,
    copy_cifar10,
    copy_imagenet_devkit,
    copy_imagenet_kaggle,
    copy_variant,
    save_picture,
    save_struct,
    write_lines,
)
from pacl.datasets.classification import (
    CLASSIFICATION,
    CLASSIFICATION_NAMES,
    SUITE,
    find_classification,
    open_classification,
)
from pacl.datasets.classification.caltech import FOLDERS
from pacl.datasets.classification.dataset import PackedPixels, Split
from pacl.datasets.classification.flowers import CLASSES
from pacl.datasets.classification.imagenet import read_imagenet
from pacl.datasets.classification.synsets import choose_names, read_synset_words
from pacl.datasets.segmentation import NAMES
from pacl.datasets.storybook import THINGS
from pacl.errors import EnvironmentProblem, InputError
from pacl.text.labels import parse_labels


@pytest.mark.parametrize("name", COPIES)
def test_reads_the_official_layout(name: str, tmp_path: Path) -> None:
    targets = COPIES[name](tmp_path)
    opened = open_classification(name, root=tmp_path)
    data = opened.data
    assert opened.describe().startswith(f"{name}: {len(targets):,} images of ")
    header, rows = opened.class_table()
    assert header == ["class", "test", "train"][: 2 + (data.train is not None)]
    assert sum(int(row[1].replace(",", "")) for row in rows) == len(targets)
    assert data.test.targets.tolist() == targets
    assert (0 if data.train is None else len(data.train)) == N_TRAIN.get(name, 0)
    for split in (data.test, data.train):
        if split is not None:
            assert all(split.images.open(k).mode == "RGB" for k in range(len(split)))
    assert max(targets) < len(data.labels)


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_not_taken_for_the_whole_set(name: str, tmp_path: Path) -> None:
    COPIES[name](tmp_path)
    benchmark = find_classification(name)
    warnings = benchmark.warnings(open_classification(name, root=tmp_path).data)
    assert len(warnings) == (benchmark.n_images is not None) + (
        name not in ("imagenet-v2", "caltech101", "flowers102", "image-folder")
    )
    assert all("not comparable" in warning for warning in warnings)


@pytest.mark.parametrize("name", [name for name in COPIES if name != "image-folder"])
def test_a_wrong_root_says_what_to_download(name: str, tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError) as caught:
            open_classification(name, root=root)
        assert find_classification(name).download in caught.value.fix
        assert str(root) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["caltech101", "food101", "flowers102", "pets", "cars", "dtd", "imagenet"]
)
def test_all_pictures_gone(name: str, tmp_path: Path) -> None:
    COPIES[name](tmp_path)
    for path in [*tmp_path.rglob("*.jpg"), *tmp_path.rglob("*.JPEG")]:
        path.unlink()
    with pytest.raises(InputError) as caught:
        open_classification(name, root=tmp_path)
    assert find_classification(name).download in caught.value.fix


@pytest.mark.parametrize("name", ["food101", "flowers102", "pets", "cars", "dtd"])
def test_one_image_gone_is_named(name: str, tmp_path: Path) -> None:
    COPIES[name](tmp_path)
    data = open_classification(name, root=tmp_path).data
    gone = data.test.images.paths[0]  # type: ignore[attr-defined]
    gone.unlink()
    with pytest.raises(InputError, match=f"1 of {len(data.test)} images") as caught:
        open_classification(name, root=tmp_path)
    assert str(gone) in caught.value.why


def test_the_suite() -> None:
    assert len(SUITE) == 12
    assert len(set(CLASSIFICATION_NAMES)) == len(CLASSIFICATION) == 14
    assert not set(CLASSIFICATION_NAMES) & {*NAMES, "folder", "storybook"}
    for benchmark in CLASSIFICATION:
        assert all(template.count("{}") == 1 for template in benchmark.templates)
    with pytest.raises(InputError, match="no classification set called 'mnist'"):
        find_classification("mnist")


def test_class_lists_have_the_official_length() -> None:
    assert len(set(FOLDERS)) == 101
    assert len(set(CLASSES)) == 102
    assert CLASSES[76] == "passion flower"
    assert find_classification("caltech101").n_images == 5_647


def test_labels_can_be_told_apart(tmp_path: Path) -> None:
    for name, copy in COPIES.items():
        copy(tmp_path / name)
        labels = open_classification(name, root=tmp_path / name).data.labels
        assert parse_labels(list(labels.names)).names == labels.names


@pytest.mark.parametrize("copy", [copy_imagenet_kaggle, copy_imagenet_devkit])
def test_imagenet_side_by_side(copy, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    targets = copy(tmp_path)
    data = read_imagenet(tmp_path)
    assert data.test.targets.tolist() == targets
    assert data.labels.names == SYNSET_NAMES


def test_imagenet_without_classes_or_words(tmp_path: Path) -> None:
    save_picture(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(InputError, match="classes of the images"):
        read_imagenet(tmp_path)
    save_picture(tmp_path / "val" / GOLDFISH / "a.JPEG")
    with pytest.raises(InputError, match="no list of class names") as caught:
        read_imagenet(tmp_path)
    assert "LOC_synset_mapping.txt" in caught.value.fix


def test_words_of_ones_own_come_first(tmp_path: Path) -> None:
    copy_variant(tmp_path, "imagenet-r")
    data = open_classification("imagenet-r", root=tmp_path).data
    assert data.labels.names == ("goldfish", "Welsh corgi", "construction crane")
    lines = ("n01443537 gold fish", "n03126707 tower crane", "n02113186 corgi")
    write_lines(tmp_path / "imagenet-r" / "names.txt", *lines)
    data = open_classification("imagenet-r", root=tmp_path / "imagenet-r").data
    assert data.labels.names == ("gold fish", "corgi", "tower crane")


def test_synsets_with_the_same_words_get_their_ids() -> None:
    words = {"n00000001": ("bow",), "n00000002": ("bow",), CRANE: ("crane",)}
    assert list(choose_names(words).values()) == [
        "bow n00000001",
        "bow n00000002",
        "construction crane",
    ]


def test_synset_lists_in_each_notation(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("n00000001\ttench, Tinca tinca\nsome text\nn00000002 great_white_shark\n")
    assert read_synset_words(path) == {
        "n00000001": ("tench", "Tinca tinca"),
        "n00000002": ("great white shark",),
    }


def test_imagenet_v2_needs_the_whole_list(tmp_path: Path) -> None:
    COPIES["imagenet-v2"](tmp_path)
    write_lines(tmp_path / "LOC_synset_mapping.txt", f"{GOLDFISH} goldfish")
    with pytest.raises(InputError, match="no list of the 1,000 classes"):
        open_classification("imagenet-v2", root=tmp_path)


def test_caltech_leaves_the_background_out_and_knows_its_folders(tmp_path: Path) -> None:
    copy_caltech(tmp_path)
    data = open_classification("caltech101", root=tmp_path / "caltech-101").data
    names = [path.name for path in data.test.images.paths]  # type: ignore[attr-defined]
    assert names == ["image_0031.jpg", "image_0032.jpg"]
    save_picture(tmp_path / "caltech-101" / "101_ObjectCategories" / "zebra" / "1.jpg")
    with pytest.raises(InputError, match="zebra"):
        open_classification("caltech101", root=tmp_path)


def test_cifar_planes_become_colours(tmp_path: Path) -> None:
    copy_cifar10(tmp_path)
    pixels = np.asarray(open_classification("cifar10", root=tmp_path).data.test.images.open(0))
    assert pixels[3, 20].tolist() == [20, 3, 0]


def test_pickled_cifar_is_refused(tmp_path: Path) -> None:
    for name, folder, file in (
        ("cifar10", "cifar-10-batches-py", "batches.meta"),
        ("cifar100", "cifar-100-python", "meta"),
    ):
        write_lines(tmp_path / folder / file, "not read")
        with pytest.raises(InputError, match="Python version") as caught:
            open_classification(name, root=tmp_path)
        assert "binary.tar.gz" in caught.value.fix


def test_cut_cifar_is_refused(tmp_path: Path) -> None:
    copy_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="cut or damaged"):
        open_classification("cifar10", root=tmp_path)
    path.write_bytes(bytes([9]) + cifar_planes())
    with pytest.raises(InputError, match="the class 9, but names for 3"):
        open_classification("cifar10", root=tmp_path)


def test_matlab_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    COPIES["cars"](tmp_path)
    base = tmp_path / "stanford_cars"
    save_struct(base / "cars_test_annos_withlabels.mat", "annotations", fname=["00001.jpg"])
    with pytest.raises(InputError, match="holds no classes"):
        open_classification("cars", root=tmp_path)
    (base / "cars_test_annos_withlabels.mat").write_bytes(b"text")
    with pytest.raises(InputError, match="cannot read"):
        open_classification("cars", root=tmp_path)
    (base / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(InputError, match="MATLAB file is missing"):
        open_classification("cars", root=tmp_path)
    save_struct(base / "cars_test_annos_withlabels.mat", "other", fname=["00001.jpg"])
    with pytest.raises(InputError, match="no variable 'annotations'"):
        open_classification("cars", root=tmp_path)
    real_import = builtins.__import__

    def without_scipy(name: str, *rest: object, **more: object) -> object:
        if name.startswith("scipy"):
            raise ImportError(name)
        return real_import(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(EnvironmentProblem, match="scipy") as caught:
        open_classification("cars", root=tmp_path)
    assert caught.value.fix == "pip install scipy"


def test_flowers_of_another_set(tmp_path: Path) -> None:
    COPIES["flowers102"](tmp_path)
    from scipy.io import savemat

    savemat(tmp_path / "flowers-102" / "imagelabels.mat", {"labels": np.array([[103, 1]])})
    with pytest.raises(InputError, match="no classes 1 to 102"):
        open_classification("flowers102", root=tmp_path)
    savemat(tmp_path / "flowers-102" / "imagelabels.mat", {"labels": np.array([[3, 1]])})
    with pytest.raises(InputError, match="names image 3, of 2"):
        open_classification("flowers102", root=tmp_path)


def test_a_list_that_is_none(tmp_path: Path) -> None:
    COPIES["pets"](tmp_path)
    write_lines(tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt", "Abyssinian_2")
    with pytest.raises(InputError, match="no list of the Pets"):
        open_classification("pets", root=tmp_path)
    COPIES["food101"](tmp_path)
    write_lines(tmp_path / "food-101" / "meta" / "test.txt", "pizza/1")
    with pytest.raises(InputError, match="pizza/1"):
        open_classification("food101", root=tmp_path)
    write_lines(tmp_path / "food-101" / "meta" / "test.txt")
    with pytest.raises(InputError, match="is empty"):
        open_classification("food101", root=tmp_path)


def test_a_folder_without_splits(tmp_path: Path) -> None:
    for name in ("boat/1.jpg", "red_bus/a/2.png", ".hidden/1.jpg", "empty/notes.txt"):
        save_picture(tmp_path / name) if "notes" not in name else write_lines(tmp_path / name, "")
    data = open_classification("image-folder", root=tmp_path).data
    assert data.labels.names == ("boat", "red bus")
    assert data.train is None


def test_words_for_a_folder(tmp_path: Path) -> None:
    COPIES["image-folder"](tmp_path)
    write_lines(tmp_path / "classes.json", '{"red_bus": ["bus", "coach"], "boat": "ship"}')
    labels = open_classification("image-folder", root=tmp_path).data.labels
    assert labels.names == ("boat", "red_bus")
    assert labels.prompts == (("ship",), ("bus", "coach"))
    write_lines(tmp_path / "classes.json", '{"red_bus": "bus"}')
    with pytest.raises(InputError, match="does not name every class folder"):
        open_classification("image-folder", root=tmp_path)


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sub-folders with images"):
        open_classification("image-folder", root=tmp_path)
    with pytest.raises(InputError, match="no folder"):
        open_classification("image-folder", root=tmp_path / "nowhere")
    COPIES["image-folder"](tmp_path)
    save_picture(tmp_path / "train" / "plane" / "1.jpg")
    with pytest.raises(InputError, match="plane"):
        open_classification("image-folder", root=tmp_path)


def test_storybook_things_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pacl.datasets.classification import storybook

    monkeypatch.setattr(storybook, "N_TEST", 14)
    monkeypatch.setattr(storybook, "N_TRAIN", 3)
    data = open_classification("storybook-things", root=tmp_path).data
    assert data.labels.names == THINGS
    assert data.test.targets.tolist() == [k % len(THINGS) for k in range(14)]
    assert data.train is not None
    first, other = (np.asarray(split.images.open(0)) for split in (data.test, data.train))
    assert (first != other).any()
    shutil.rmtree(tmp_path / "storybook-things" / "train")
    again = open_classification("storybook-things", root=tmp_path).data
    assert (np.asarray(again.test.images.open(0)) == first).all()


def test_a_split_of_unequal_lengths() -> None:
    pictures = PackedPixels(np.zeros((2, 3, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="2 images, 1 targets"):
        Split(pictures, np.zeros(1, np.int64))
