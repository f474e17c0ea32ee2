"""Describable Textures (DTD) test, the first of its ten official splits (Cimpoi et al. 2014)."""

from __future__ import annotations

from pathlib import Path

from pacl.datasets.classification.dataset import (
    ClassificationBenchmark,
    ClassificationData,
    plain_labels,
    read_lines,
    split_of,
)
from pacl.datasets.segmentation.dataset import find_base

DOWNLOAD = (
    "download https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz and unpack it "
    "in the root: dtd/{images/banded/*.jpg, labels/train1.txt, labels/val1.txt, labels/test1.txt}"
)


def read(root: Path) -> ClassificationData:
    """The images that labels/test1.txt lists; to train, those of train1.txt and val1.txt.

    Raises:
        InputError: Images or lists are missing.
    """
    base = find_base(root, ("dtd",), holds="labels", title="DTD", download=DOWNLOAD)
    test = _read_list(base / "labels" / "test1.txt")
    train = [
        line
        for name in ("train1.txt", "val1.txt")
        if (base / "labels" / name).is_file()
        for line in _read_list(base / "labels" / name)
    ]
    textures = sorted({line.split("/")[0] for line in [*test, *train]})
    class_of = {name: k for k, name in enumerate(textures)}

    def rows(lines: list[str]) -> list[tuple[Path, int]]:
        return [(base / "images" / line, class_of[line.split("/")[0]]) for line in lines]

    return ClassificationData(
        labels=plain_labels(textures),
        test=split_of(rows(test), title="DTD", download=DOWNLOAD),
        train=split_of(rows(train), title="DTD", download=DOWNLOAD) if train else None,
    )


def _read_list(path: Path) -> list[str]:
    return read_lines(path, kind="the split file", download=DOWNLOAD)


DTD = ClassificationBenchmark(
    name="dtd",
    title="DTD test, split 1",
    templates=("a photo of a {} texture.", "a photo of a {} surface.", "a {} pattern."),
    n_classes=47,
    n_images=1_880,
    usual_metric="top1",
    read=read,
    download=DOWNLOAD,
)
