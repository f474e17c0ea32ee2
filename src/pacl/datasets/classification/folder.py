"""Images of one's own: a folder with one sub-folder per class."""

from __future__ import annotations

import json
from pathlib import Path

from pacl.datasets.classification.dataset import (
    ClassificationBenchmark,
    ClassificationData,
    Split,
    list_class_folders,
    plain_labels,
    rows_of,
    split_of,
)
from pacl.errors import InputError
from pacl.text.labels import Labels, parse_labels

CLASSES = "classes.json"
_TEST_NAMES = ("test", "val", "validation")
DOWNLOAD = (
    "one sub-folder per class with its images, FOLDER/cat/1.jpg; to have the fusion's weight "
    "chosen on other images, FOLDER/test/cat/1.jpg and FOLDER/train/cat/2.jpg"
)


def read(root: Path) -> ClassificationData:
    """The images below root, or below its test/ (val/, validation/) and train/.

    A class is called as its folder, underscores read as spaces. `classes.json` in root gives
    other words: {"folder": "word"} or {"folder": ["word", "word"]}.

    Raises:
        InputError: There are no sub-folders with images, or classes.json does not fit them.
    """
    if not root.is_dir():
        raise InputError(f"no folder {root}", fix=DOWNLOAD)
    test_folder = next((root / n for n in _TEST_NAMES if (root / n).is_dir()), root)
    folders = {name: paths for name, paths in list_class_folders(test_folder).items() if paths}
    if not folders:
        raise InputError(f"no sub-folders with images in {test_folder}", fix=DOWNLOAD)
    class_of = {name: k for k, name in enumerate(folders)}
    return ClassificationData(
        labels=_read_labels(root / CLASSES, list(folders)),
        test=split_of(rows_of(folders, class_of), title=str(root), download=DOWNLOAD, check=False),
        train=_read_train(root, class_of) if test_folder != root else None,
    )


def _read_train(root: Path, class_of: dict[str, int]) -> Split | None:
    if not (root / "train").is_dir():
        return None
    folders = list_class_folders(root / "train")
    strange = sorted(folders.keys() - class_of.keys())
    if strange:
        raise InputError(
            f"classes in {root / 'train'} that the test images do not have: "
            f"{', '.join(strange[:5])}",
            fix="give both the same sub-folders",
        )
    rows = rows_of(folders, class_of)
    return split_of(rows, title=str(root / "train"), download=DOWNLOAD, check=False)


def _read_labels(path: Path, folders: list[str]) -> Labels:
    if not path.is_file():
        return parse_labels(plain_labels(folders).names)
    try:
        words = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON", why=str(error)) from error
    if not isinstance(words, dict) or sorted(words) != sorted(folders):
        raise InputError(
            f"{path} does not name every class folder once",
            why=f"folders: {', '.join(folders[:8])}",
            fix=f'{{"{folders[0]}": ["word", "another word"], ...}}',
        )
    return parse_labels({name: words[name] for name in folders})


FOLDER = ClassificationBenchmark(
    name="image-folder",
    title="the folder",
    templates=("a photo of a {}.", "a photo of the {}."),
    n_classes=None,
    n_images=None,
    usual_metric="top1",
    read=read,
    download=DOWNLOAD,
)
