"""CVAT's *Segmentation mask 1.1*: one zip with the labels' colours and two PNGs per image."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from pacl.errors import InputError
from pacl.results.palette import NONE_COLOUR, class_colours
from pacl.results.regions import find_regions
from pacl.results.writers.parts import Parts
from pacl.results.writers.png import encode_png
from pacl.results.writers.writer import Result
from pacl.runtime.files import replacing

OBJECTS_MAX = 255
"""CVAT has so many colours for the objects of an image, and so many labels."""
BACKGROUND = "background"
"""Its name for pixels of no label."""


class CvatWriter:
    """Writes cvat.zip, to be uploaded as annotations of a task with these labels.

    An object is a connected region; pixels of no label are black in both PNGs, so that no object
    is made of them. In an image of more than 255 regions the small ones of a label are one object.
    Of more than 255 labels, those that are in no image are left out.
    """

    def __init__(self) -> None:
        self._classes, self._objects = Parts("cvat-classes", ".png"), Parts("cvat", ".png")
        self._seen = Parts("cvat-labels", ".json")
        self._path, self._labels = Path(), ()
        self._colours = np.zeros((1, 3), dtype=np.uint8)

    def mark(self, stem: str) -> str:
        """Return the path of the image's PNG of objects, which follows that of its classes."""
        return self._objects.mark(stem)

    def open(self, folder: Path, labels: Sequence[str]) -> None:
        """Begin or continue the parts.

        Raises:
            InputError: A name would break labelmap.txt.
        """
        for label in labels:
            is_own = label.casefold() == BACKGROUND or label != label.strip()
            if ":" in label or label.startswith("#") or is_own:
                raise InputError(
                    f"CVAT's format cannot hold the label {label!r}",
                    why="its labelmap.txt has colons between fields, # before remarks, no space "
                    f"around names, and {BACKGROUND} for what has no label",
                    fix='rename it: a .json file {"new name": ["prompt"]} for --labels',
                )
        self._path, self._labels = folder / "cvat.zip", tuple(labels)
        self._colours = np.concatenate([[NONE_COLOUR], class_colours(labels)]).astype(np.uint8)
        for parts in (self._classes, self._seen, self._objects):
            parts.open(folder, labels)

    def add(self, result: Result, stem: str) -> Path:
        """Keep both PNGs for the zip, whose path is returned.

        Raises:
            InputError: More than 255 labels are in the image.
        """
        objects = _object_colours()[number_objects(result.label_map)]
        classes = self._colours[result.label_map]
        self._classes.write(stem, encode_png(Image.fromarray(classes)))
        numbers = np.unique(result.label_map[result.label_map > 0]).tolist()
        self._seen.write(stem, json.dumps(numbers).encode())
        self._objects.write(stem, encode_png(Image.fromarray(objects)))
        return self._path

    def close(self) -> None:
        """Write the zip: PNGs are compressed already, so they are stored.

        Raises:
            InputError: The images have more than 255 labels in all.
        """
        names = [BACKGROUND, *self._labels]
        lines = [
            f"{names[k]}:{','.join(map(str, self._colours[k].tolist()))}::"
            for k in self._listed_labels()
        ]
        stems = [stem for stem, _ in self._objects]
        with replacing(self._path) as draft, zipfile.ZipFile(draft, "w") as file:
            file.writestr("labelmap.txt", "# label:color_rgb:parts:actions\n" + _joined(lines))
            file.writestr("ImageSets/Segmentation/default.txt", _joined(stems))
            for name, parts in (("Class", self._classes), ("Object", self._objects)):
                for stem, path in parts:
                    file.write(path, f"Segmentation{name}/{stem}.png")

    def _listed_labels(self) -> list[int]:
        """Return the numbers of the labels that labelmap.txt lists, 0 for no label first."""
        if len(self._labels) <= OBJECTS_MAX:
            return [*range(len(self._labels) + 1)]
        seen = {k for _, path in self._seen for k in json.loads(path.read_text(encoding="utf-8"))}
        if len(seen) > OBJECTS_MAX:
            raise InputError(
                f"CVAT's format holds {OBJECTS_MAX} labels, the images have {len(seen)}",
                fix="fewer words, or another of --formats",
            )
        return [0, *sorted(seen)]


def number_objects(label_map: Int[np.ndarray, "H W"]) -> Int[np.ndarray, "H W"]:
    """Number the objects of an image from 1, at most OBJECTS_MAX, each of one label; 0 is none.

    Raises:
        InputError: It has more labels than that.
    """
    regions = sorted(find_regions(label_map), key=lambda region: -region.area)
    n_own, n_labels = len(regions), len(np.unique(label_map[label_map > 0]))
    if n_labels > OBJECTS_MAX:
        raise InputError(f"CVAT's format holds {OBJECTS_MAX} labels in an image, not {n_labels}")
    if n_own > OBJECTS_MAX:
        n_own = OBJECTS_MAX - n_labels
    rest: Counter[int] = Counter()
    numbers = np.zeros(label_map.shape, dtype=np.int32)
    for k, region in enumerate(regions, start=1):
        if k > n_own and region.number not in rest:
            rest[region.number] = n_own + len(rest) + 1
        numbers[region.rows, region.columns] = k if k <= n_own else rest[region.number]
    return numbers


def _object_colours() -> UInt8[np.ndarray, "256 3"]:
    """Pascal VOC's colours: a channel takes every third bit of the number, the lowest on top."""
    numbers = np.arange(256)[:, None]
    bits = [(numbers >> (3 * k + np.arange(3)) & 1) << (7 - k) for k in range(8)]
    return np.sum(bits, axis=0).astype(np.uint8)


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
