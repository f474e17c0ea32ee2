"""CIFAR-10 and CIFAR-100 test (Krizhevsky 2009), from the binary version.

The Python version is pickled, and reading a pickle runs what is in it; so it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pacl.datasets.classification.dataset import (
    ClassificationBenchmark,
    ClassificationData,
    PackedPixels,
    Split,
    plain_labels,
    read_lines,
)
from pacl.errors import InputError

_N_PIXEL_BYTES = 3 * 32 * 32
DOWNLOAD_10 = (
    "download https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz and unpack it in the root: "
    "cifar-10-batches-bin/{data_batch_1.bin, ..., test_batch.bin, batches.meta.txt}"
)
DOWNLOAD_100 = (
    "download https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz and unpack it in the root: "
    "cifar-100-binary/{train.bin, test.bin, fine_label_names.txt}"
)


def read_cifar10(root: Path) -> ClassificationData:
    """The 10 classes; a record is the class and the image's three colour planes.

    Raises:
        InputError: Files are missing or cut, or only the pickled version is here.
    """
    base = _find(root, "cifar-10-batches-bin", "cifar-10-batches-py", "test_batch.bin", DOWNLOAD_10)
    return _read(
        base,
        names_file="batches.meta.txt",
        test_files=["test_batch.bin"],
        train_files=[f"data_batch_{k}.bin" for k in range(1, 6)],
        label_bytes=1,
        download=DOWNLOAD_10,
    )


def read_cifar100(root: Path) -> ClassificationData:
    """The 100 fine classes; a record is the coarse class, the fine one and the colour planes.

    Raises:
        InputError: Files are missing or cut, or only the pickled version is here.
    """
    base = _find(root, "cifar-100-binary", "cifar-100-python", "test.bin", DOWNLOAD_100)
    return _read(
        base,
        names_file="fine_label_names.txt",
        test_files=["test.bin"],
        train_files=["train.bin"],
        label_bytes=2,
        download=DOWNLOAD_100,
    )


def _find(root: Path, folder: str, pickled: str, witness: str, download: str) -> Path:
    for base in (root / folder, root):
        if (base / witness).is_file():
            return base
    for base in (root / pickled, root):
        if (base / "batches.meta").is_file() or (base / "meta").is_file():
            raise InputError(
                f"{base} holds the Python version of CIFAR, which pacl does not read",
                why="it is pickled, and reading a pickle runs the code that is in it",
                fix=download,
            )
    raise InputError(
        f"no CIFAR in {root}", why=f"looked for {root / folder / witness}", fix=download
    )


def _read(
    base: Path,
    *,
    names_file: str,
    test_files: Sequence[str],
    train_files: Sequence[str],
    label_bytes: int,
    download: str,
) -> ClassificationData:
    labels = plain_labels(
        read_lines(base / names_file, kind="the list of class names", download=download)
    )
    n_classes = len(labels)
    test = _read_records([base / name for name in test_files], label_bytes, n_classes, download)
    train_paths = [base / name for name in train_files if (base / name).is_file()]
    return ClassificationData(
        labels=labels,
        test=test,
        train=_read_records(train_paths, label_bytes, n_classes, download) if train_paths else None,
    )


def _read_records(paths: Sequence[Path], label_bytes: int, n_classes: int, download: str) -> Split:
    """All records of some files; the last of the label bytes is the class."""
    size = label_bytes + _N_PIXEL_BYTES
    for path in paths:
        n_bytes = path.stat().st_size
        if n_bytes == 0 or n_bytes % size:
            raise InputError(
                f"{path} is cut or damaged",
                why=f"{n_bytes:,} bytes are not a whole number of records of {size:,} bytes",
                fix=download,
            )
    table = np.concatenate([np.fromfile(path, dtype=np.uint8).reshape(-1, size) for path in paths])
    targets = table[:, label_bytes - 1].astype(np.int64)
    if targets.max() >= n_classes:
        raise InputError(
            f"{paths[0].parent} holds the class {targets.max()}, but names for {n_classes}",
            fix=download,
        )
    return Split(PackedPixels(table[:, label_bytes:].reshape(-1, 3, 32, 32)), targets)


_TEMPLATES = ("a photo of a {}.", "a blurry photo of a {}.", "a low resolution photo of a {}.")

CIFAR10 = ClassificationBenchmark(
    name="cifar10",
    title="CIFAR-10 test",
    templates=_TEMPLATES,
    n_classes=10,
    n_images=10_000,
    usual_metric="top1",
    read=read_cifar10,
    download=DOWNLOAD_10,
)
CIFAR100 = ClassificationBenchmark(
    name="cifar100",
    title="CIFAR-100 test",
    templates=_TEMPLATES,
    n_classes=100,
    n_images=10_000,
    usual_metric="top1",
    read=read_cifar100,
    download=DOWNLOAD_100,
)
