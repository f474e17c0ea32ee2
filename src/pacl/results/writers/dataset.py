"""Data sets to train closed-set models on: images, masks of class numbers, and a YAML file."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pacl.errors import InputError
from pacl.results.writers.png import encode_png
from pacl.results.writers.writer import Result
from pacl.runtime.files import write_atomically

N_PARTS = 10
"""One image in so many is for validation."""
IGNORE = 255


@dataclass(frozen=True)
class Layout:
    """How a trainer wants its data set."""

    name: str
    path: str
    """Where a file lies, with {kind} for images or masks and {split} for train or val."""
    n_classes_max: int
    first: int
    """The number of the first class in the masks."""
    none: int
    """The number of pixels without a label: training passes them over."""
    describe: Callable[[Path, Mapping[int, str], Mapping[str, str]], list[str]]
    """Lines of the YAML file, from the folder, the classes and the folder of each split."""


class DatasetWriter:
    """Writes images, masks and NAME/data.yaml.

    Images are JPEG of quality 95, upright and of the mask's size. By a hash of its name one image
    in ten is for validation; where that leaves one of the two without any, both are all images.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._folder, self._labels = Path(), ()

    def mark(self, stem: str) -> str:
        """Return the mask's path; it follows the image."""
        return self._place("masks", _split_of(stem)) + f"/{stem}.png"

    def open(self, folder: Path, labels: Sequence[str]) -> None:
        """Note folder and labels.

        Raises:
            InputError: The masks' 8 bits cannot hold so many classes.
        """
        if len(labels) > self._layout.n_classes_max:
            raise InputError(
                f"{self._layout.name} masks hold {self._layout.n_classes_max} classes, "
                f"not {len(labels)}",
                fix="segment with fewer labels, or choose another of --formats",
            )
        self._folder, self._labels = folder, tuple(labels)

    def add(self, result: Result, stem: str) -> Path:
        """Write the image and its mask, which is returned."""
        buffer = io.BytesIO()
        result.image.convert("RGB").save(buffer, format="JPEG", quality=95)
        image_path = self._folder / self._place("images", _split_of(stem)) / f"{stem}.jpg"
        write_atomically(image_path, buffer.getvalue())
        numbers = result.label_map + (self._layout.first - 1)
        numbers = np.where(result.label_map == 0, self._layout.none, numbers).astype(np.uint8)
        path = self._folder / self.mark(stem)
        write_atomically(path, encode_png(Image.fromarray(numbers)))
        return path

    def close(self) -> None:
        """Write the YAML file."""
        used = {
            split: any((self._folder / self._place("masks", split)).glob("*.png"))
            for split in ("train", "val")
        }
        only = next((split for split in used if used[split]), "train")
        splits = {split: split if used[split] else only for split in used}
        classes = dict(enumerate(self._labels, start=self._layout.first))
        lines = self._layout.describe(self._folder / self._layout.name, classes, splits)
        content = "".join(f"{line}\n" for line in lines)
        write_atomically(self._folder / self._layout.name / "data.yaml", content.encode())

    def _place(self, kind: str, split: str) -> str:
        return f"{self._layout.name}/" + self._layout.path.format(kind=kind, split=split)


def _split_of(stem: str) -> str:
    return "train" if zlib.crc32(stem.encode()) % N_PARTS else "val"


def _describe_ultralytics(
    folder: Path, classes: Mapping[int, str], splits: Mapping[str, str]
) -> list[str]:
    return [
        *(f"{split}: images/{folder_of}" for split, folder_of in splits.items()),
        "masks_dir: masks",
        "names:",
        *_names(classes),
    ]


def _describe_lightly(
    folder: Path, classes: Mapping[int, str], splits: Mapping[str, str]
) -> list[str]:
    root = folder.resolve().as_posix()
    return [
        *(
            f"{split}: {json.dumps(paths, ensure_ascii=False)}"
            for split, folder_of in splits.items()
            for paths in [{kind: f"{root}/{folder_of}/{kind}" for kind in ("images", "masks")}]
        ),
        "classes:",
        '  0: "none"',
        *_names(classes),
        "ignore_classes: [0]",
    ]


def _names(classes: Mapping[int, str]) -> list[str]:
    """Lines of YAML; strings in JSON's form are strings of YAML."""
    return [f"  {k}: {json.dumps(name, ensure_ascii=False)}" for k, name in classes.items()]


ULTRALYTICS = Layout(
    "ultralytics", "{kind}/{split}", 255, first=0, none=IGNORE, describe=_describe_ultralytics
)
LIGHTLY = Layout("lightly", "{split}/{kind}", 254, first=1, none=0, describe=_describe_lightly)
