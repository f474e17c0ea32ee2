"""Food-101 test (Bossard et al. 2014)."""

from __future__ import annotations

from pathlib import Path

from pacl.datasets.classification.dataset import (
    ClassificationBenchmark,
    ClassificationData,
    Split,
    plain_labels,
    read_lines,
    split_of,
)
from pacl.datasets.segmentation.dataset import find_base
from pacl.errors import InputError

DOWNLOAD = (
    "download http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz and unpack it in the root: "
    "food-101/{images/apple_pie/*.jpg, meta/classes.txt, meta/train.txt, meta/test.txt}"
)


def read(root: Path) -> ClassificationData:
    """The images that meta/test.txt lists.

    Raises:
        InputError: Images or lists are missing, or a list names a class that there is not.
    """
    base = find_base(
        root, ("food-101", "food101"), holds="meta", title="Food-101", download=DOWNLOAD
    )
    folders = read_lines(base / "meta" / "classes.txt", kind="the class list", download=DOWNLOAD)
    class_of = {name: k for k, name in enumerate(folders)}
    has_train = (base / "meta" / "train.txt").is_file()
    return ClassificationData(
        labels=plain_labels(folders),
        test=_read_split(base, "test", class_of),
        train=_read_split(base, "train", class_of) if has_train else None,
    )


def _read_split(base: Path, name: str, class_of: dict[str, int]) -> Split:
    lines = read_lines(base / "meta" / f"{name}.txt", kind="the split file", download=DOWNLOAD)
    strange = [line for line in lines if line.split("/")[0] not in class_of]
    if strange:
        raise InputError(
            f"{base / 'meta' / name}.txt names a class that classes.txt does not have: "
            f"{strange[0]}",
            fix=DOWNLOAD,
        )
    rows = ((base / "images" / f"{line}.jpg", class_of[line.split("/")[0]]) for line in lines)
    return split_of(rows, title=f"Food-101 {name}", download=DOWNLOAD)


FOOD101 = ClassificationBenchmark(
    name="food101",
    title="Food-101 test",
    templates=("a photo of {}, a type of food.", "a photo of a plate of {}."),
    n_classes=101,
    n_images=25_250,
    usual_metric="top1",
    read=read,
    download=DOWNLOAD,
)
