"""Stanford Cars test (Krause et al. 2013): 196 makes, models and years."""

from __future__ import annotations

from pathlib import Path

from pacl.datasets.classification.dataset import (
    ClassificationBenchmark,
    ClassificationData,
    Split,
    plain_labels,
    split_of,
)
from pacl.datasets.classification.matlab import load_mat, records, texts
from pacl.datasets.segmentation.dataset import find_base
from pacl.errors import InputError

_TEST_ANNOTATIONS = "cars_test_annos_withlabels.mat"
DOWNLOAD = (
    "the authors' page is gone; https://github.com/pytorch/vision/issues/7545 says where its files "
    "are kept. Lay them out in the root as stanford_cars/{cars_test/00001.jpg, "
    "cars_test_annos_withlabels.mat, devkit/cars_meta.mat, cars_train/00001.jpg, "
    "devkit/cars_train_annos.mat}"
)


def read(root: Path) -> ClassificationData:
    """The images of cars_test, with the classes of cars_test_annos_withlabels.mat.

    Raises:
        InputError: Images or lists are missing; cars_test_annos.mat has no classes and is not
            enough.
        EnvironmentProblem: The package scipy is not installed.
    """
    base = find_base(
        root,
        ("stanford_cars", "stanford-cars", "cars"),
        holds="cars_test",
        title="Stanford Cars",
        download=DOWNLOAD,
    )
    meta = load_mat(base / "devkit" / "cars_meta.mat", download=DOWNLOAD)
    class_names = texts(meta, "class_names")
    places = (base / _TEST_ANNOTATIONS, base / "devkit" / _TEST_ANNOTATIONS)
    annotations = next((path for path in places if path.is_file()), places[0])
    train = base / "devkit" / "cars_train_annos.mat"
    has_train = train.is_file() and (base / "cars_train").is_dir()
    return ClassificationData(
        labels=plain_labels(class_names),
        test=_split(base / "cars_test", annotations, len(class_names)),
        train=_split(base / "cars_train", train, len(class_names)) if has_train else None,
    )


def _split(folder: Path, annotations: Path, n_classes: int) -> Split:
    rows = records(load_mat(annotations, download=DOWNLOAD), "annotations")
    if not rows or not {"fname", "class"} <= rows[0].keys():
        raise InputError(
            f"{annotations} holds no classes", why="wanted the fields fname and class", fix=DOWNLOAD
        )
    files = [(folder / str(row["fname"]), int(row["class"]) - 1) for row in rows]
    if not all(0 <= class_id < n_classes for _, class_id in files):
        raise InputError(f"{annotations} holds no classes 1 to {n_classes}", fix=DOWNLOAD)
    return split_of(files, title="Stanford Cars", download=DOWNLOAD)


CARS = ClassificationBenchmark(
    name="cars",
    title="Stanford Cars test",
    templates=("a photo of a {}.", "a photo of the {}, a type of car."),
    n_classes=196,
    n_images=8_041,
    usual_metric="top1",
    read=read,
    download=DOWNLOAD,
)
