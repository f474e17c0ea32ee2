"""ImageNet (ILSVRC 2012) val, and three test sets with its classes.

Russakovsky et al. 2015; ImageNet-A: Hendrycks et al. 2021, natural adversarial examples;
ImageNet-R: Hendrycks et al. 2021, the many faces of robustness; ImageNet-V2: Recht et al. 2019,
matched frequency. Candidates are the classes of each set: 1,000, and 200 for -A and -R.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from pacl.datasets.classification.dataset import (
    ClassificationBenchmark,
    ClassificationData,
    Split,
    list_class_folders,
    plain_labels,
    read_lines,
    rows_of,
    split_of,
)
from pacl.datasets.classification.matlab import load_mat, records
from pacl.datasets.classification.synsets import choose_names, find_all_synsets, find_synset_words
from pacl.datasets.segmentation.dataset import find_base
from pacl.errors import InputError
from pacl.text.labels import Labels
from pacl.text.templates import IMAGENET80

DOWNLOAD = (
    "register at https://image-net.org, or join "
    "https://www.kaggle.com/c/imagenet-object-localization-challenge, and keep "
    "ILSVRC/Data/CLS-LOC/val/*.JPEG with LOC_val_solution.csv and LOC_synset_mapping.txt; or "
    "val/n01440764/*.JPEG, one folder per class, with LOC_synset_mapping.txt"
)
_KAGGLE = "ILSVRC/Data/CLS-LOC"
N_TRAIN_PER_CLASS = 20
_PLACES = (_KAGGLE, "imagenet", f"imagenet/{_KAGGLE}", "ILSVRC2012")
_DEVKIT = "ILSVRC2012_devkit_t12/data"


def read_imagenet(root: Path) -> ClassificationData:
    """The val images, in folders by class, or as distributed with the table of their classes.

    Raises:
        InputError: They, their classes or the class names are missing.
    """
    base = find_base(root, _PLACES, holds="val", title="ImageNet", download=DOWNLOAD)
    places = _above(base, root)
    folders = list_class_folders(base / "val")
    if folders:
        wnid_of = {path: name for name, paths in folders.items() for path in paths}
    else:
        wnid_of = _read_flat(base / "val", places)
    wnids = sorted(set(wnid_of.values()))
    class_of = {wnid: k for k, wnid in enumerate(wnids)}
    return ClassificationData(
        labels=_name(find_synset_words(places, wnids)),
        test=split_of(
            ((path, class_of[wnid]) for path, wnid in wnid_of.items()),
            title="ImageNet val",
            download=DOWNLOAD,
            check=not folders,
        ),
        train=_read_train(base / "train", class_of),
    )


def _above(base: Path, root: Path) -> list[Path]:
    """The folder of the data and those above it, up to root."""
    parents = [base, *base.parents]
    stop = parents.index(root) if root in parents else 0
    return parents[: stop + 1]


def _read_flat(val: Path, places: list[Path]) -> dict[Path, str]:
    """Images that lie side by side as in the official archive, with their WordNet ids."""
    for place in places:
        table = place / "LOC_val_solution.csv"
        if table.is_file():
            return _read_solution(table, val)
        truth = place / _DEVKIT / "ILSVRC2012_validation_ground_truth.txt"
        if truth.is_file():
            return _read_devkit(truth, val)
    raise InputError(
        f"the classes of the images in {val} are not known",
        why=f"looked for sub-folders by class, and in {', '.join(map(str, places))} for "
        f"LOC_val_solution.csv and {_DEVKIT}",
        fix=DOWNLOAD,
    )


def _read_solution(table: Path, val: Path) -> dict[Path, str]:
    """Kaggle's table: a prediction string is a WordNet id and a box, perhaps several of them."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return {
            val / f"{row['ImageId']}.JPEG": row["PredictionString"].split()[0]
            for row in sorted(rows, key=lambda row: row["ImageId"])
        }
    except (KeyError, IndexError, AttributeError, TypeError):
        raise InputError(
            f"{table} is not Kaggle's table",
            why="wanted the columns ImageId and PredictionString",
            fix=DOWNLOAD,
        ) from None


def _read_devkit(truth: Path, val: Path) -> dict[Path, str]:
    """The official development kit: one ILSVRC id per image, in the order of their numbers."""
    synsets = records(load_mat(truth.with_name("meta.mat"), download=DOWNLOAD), "synsets")
    wnid_of_id = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    ids = [int(line) for line in read_lines(truth, kind="the list of classes", download=DOWNLOAD)]
    names = (f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(ids) + 1))
    return {val / name: wnid_of_id[k] for name, k in zip(names, ids, strict=True)}


def _read_train(folder: Path, class_of: Mapping[str, int]) -> Split | None:
    """The first training images of each class by name, where they are here.

    All 1.3 million are not needed to choose one number on.
    """
    rows = [
        (path, class_id)
        for wnid, class_id in class_of.items()
        if (folder / wnid).is_dir()
        for path in sorted((folder / wnid).iterdir())[:N_TRAIN_PER_CLASS]
    ]
    if not rows:
        return None
    return split_of(rows, title="ImageNet train", download=DOWNLOAD, check=False)


def _name(words: Mapping[str, tuple[str, ...]]) -> Labels:
    return plain_labels(list(choose_names(words).values()))


def _list_folders(root: Path, folder: str) -> tuple[Path, dict[str, list[Path]]]:
    """Where a test set lies, in a folder below root or in root itself, and its class folders."""
    base = root / folder if (root / folder).is_dir() else root
    return base, list_class_folders(base) if base.is_dir() else {}


def _read_variant(root: Path, *, folder: str, title: str, download: str) -> ClassificationData:
    """A test set in folders by WordNet id."""
    base, folders = _list_folders(root, folder)
    folders = {name: paths for name, paths in folders.items() if name[:1] == "n" and paths}
    if not folders:
        raise InputError(
            f"no {title} in {root}", why=f"looked for {root / folder}/n*", fix=download
        )
    class_of = {wnid: k for k, wnid in enumerate(sorted(folders))}
    words = find_synset_words([base, root, *(root / place for place in _PLACES)], folders)
    return ClassificationData(
        labels=_name(words),
        test=split_of(rows_of(folders, class_of), title=title, download=download, check=False),
        train=None,
    )


A_DOWNLOAD = (
    "download https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar and unpack it in the "
    "root: imagenet-a/{README.txt, n01498041/*.jpg, ...}"
)
R_DOWNLOAD = (
    "download https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar and unpack it in the "
    "root: imagenet-r/{README.txt, n01443537/*.jpg, ...}"
)
V2_DOWNLOAD = (
    "download https://huggingface.co/datasets/vaishaal/ImageNetV2 "
    "(imagenetv2-matched-frequency.tar.gz) and unpack it in the root: "
    "imagenetv2-matched-frequency-format-val/{0, 1, ..., 999}/*.jpeg, and "
    "LOC_synset_mapping.txt of ImageNet beside it"
)
_V2_FOLDER = "imagenetv2-matched-frequency-format-val"
N_CLASSES = 1000


def read_v2(root: Path) -> ClassificationData:
    """ImageNet-V2; its folders are called by the number of the class, not by its id.

    Raises:
        InputError: The images or the list of the 1,000 classes are missing.
    """
    base, folders = _list_folders(root, _V2_FOLDER)
    numbered = {name: paths for name, paths in folders.items() if name.isdecimal()}
    if not numbered:
        raise InputError(
            f"no ImageNet-V2 in {root}",
            why=f"looked for {root / _V2_FOLDER}/0 to 999",
            fix=V2_DOWNLOAD,
        )
    synsets = find_all_synsets([base, root, *(root / place for place in _PLACES)], N_CLASSES)
    strange = [name for name in numbered if int(name) >= N_CLASSES]
    if strange:
        raise InputError(f"{base} has folders beyond 999: {strange[0]}", fix=V2_DOWNLOAD)
    rows = [(path, int(name)) for name in sorted(numbered, key=int) for path in numbered[name]]
    return ClassificationData(
        labels=_name(synsets),
        test=split_of(rows, title="ImageNet-V2", download=V2_DOWNLOAD, check=False),
        train=None,
    )


IMAGENET = ClassificationBenchmark(
    name="imagenet",
    title="ImageNet val",
    templates=IMAGENET80,
    n_classes=N_CLASSES,
    n_images=50_000,
    usual_metric="top1",
    read=read_imagenet,
    download=DOWNLOAD,
)
IMAGENET_A = ClassificationBenchmark(
    name="imagenet-a",
    title="ImageNet-A",
    templates=IMAGENET80,
    n_classes=200,
    n_images=7_500,
    usual_metric="top1",
    read=lambda root: _read_variant(
        root, folder="imagenet-a", title="ImageNet-A", download=A_DOWNLOAD
    ),
    download=A_DOWNLOAD,
)
IMAGENET_R = ClassificationBenchmark(
    name="imagenet-r",
    title="ImageNet-R",
    templates=IMAGENET80,
    n_classes=200,
    n_images=30_000,
    usual_metric="top1",
    read=lambda root: _read_variant(
        root, folder="imagenet-r", title="ImageNet-R", download=R_DOWNLOAD
    ),
    download=R_DOWNLOAD,
)
IMAGENET_V2 = ClassificationBenchmark(
    name="imagenet-v2",
    title="ImageNet-V2 matched frequency",
    templates=IMAGENET80,
    n_classes=N_CLASSES,
    n_images=10_000,
    usual_metric="top1",
    read=read_v2,
    download=V2_DOWNLOAD,
)
