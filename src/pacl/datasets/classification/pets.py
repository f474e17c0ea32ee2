"""Oxford-IIIT Pets test (Parkhi et al. 2012): 37 breeds."""

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
    "download images.tar.gz and annotations.tar.gz from "
    "https://www.robots.ox.ac.uk/~vgg/data/pets/ and unpack them in the root as "
    "oxford-iiit-pet/{images/*.jpg, annotations/trainval.txt, annotations/test.txt}"
)


def read(root: Path) -> ClassificationData:
    """The images that annotations/test.txt lists; a line is name, breed 1 to 37, species, number.

    Raises:
        InputError: Images or lists are missing, or the lists are not of this form.
    """
    base = find_base(
        root,
        ("oxford-iiit-pet", "oxford_pets", "pets"),
        holds="annotations",
        title="Oxford-IIIT Pets",
        download=DOWNLOAD,
    )
    test = _read_list(base / "annotations" / "test.txt")
    has_train = (base / "annotations" / "trainval.txt").is_file()
    train = _read_list(base / "annotations" / "trainval.txt") if has_train else []
    breed_of = {breed_id: stem.rpartition("_")[0] for stem, breed_id in [*test, *train]}
    ids = sorted(breed_of)
    class_of = {breed_id: k for k, breed_id in enumerate(ids)}
    return ClassificationData(
        labels=plain_labels([breed_of[breed_id] for breed_id in ids]),
        test=_split(base, test, class_of),
        train=_split(base, train, class_of) if train else None,
    )


def _read_list(path: Path) -> list[tuple[str, int]]:
    """Image name and breed id of each line."""
    lines = [
        line.split()
        for line in read_lines(path, kind="the split file", download=DOWNLOAD)
        if not line.startswith("#")
    ]
    try:
        return [(words[0], int(words[1])) for words in lines]
    except (IndexError, ValueError):
        raise InputError(
            f"{path} is no list of the Pets", why="wanted: NAME BREED SPECIES NUMBER", fix=DOWNLOAD
        ) from None


def _split(base: Path, rows: list[tuple[str, int]], class_of: dict[int, int]) -> Split:
    files = ((base / "images" / f"{stem}.jpg", class_of[breed_id]) for stem, breed_id in rows)
    return split_of(files, title="Oxford-IIIT Pets", download=DOWNLOAD)


PETS = ClassificationBenchmark(
    name="pets",
    title="Oxford-IIIT Pets test",
    templates=("a photo of a {}, a type of pet.", "a close-up photo of a {}."),
    n_classes=37,
    n_images=3_669,
    usual_metric="mean_per_class",
    read=read,
    download=DOWNLOAD,
)
