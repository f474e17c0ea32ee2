"""Label maps as PNG: 8-bit with a palette, or 16-bit grey above 254 classes."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image

from pacl.results.palette import NONE_COLOUR, class_colours
from pacl.results.writers.writer import Result
from pacl.runtime.files import write_atomically

IGNORE_8_BIT = 255
MAX_CLASSES_8_BIT = 254  # 0 is "none", 255 is kept free for "ignore"


class PngWriter:
    """Writes label maps, with a classes.json beside them that says what their numbers mean."""

    def __init__(self) -> None:
        self._folder = Path()

    def mark(self, stem: str) -> str:
        """Return the label map's file name."""
        return f"{stem}.png"

    def open(self, folder: Path, labels: Sequence[str]) -> None:
        """Write classes.json."""
        self._folder = folder
        write_classes_json(folder / "classes.json", labels)

    def add(self, result: Result, stem: str) -> Path:
        """Write the label map."""
        path = self._folder / self.mark(stem)
        write_label_png(path, result.label_map, labels=result.labels)
        return path

    def close(self) -> None:
        """Do nothing: classes.json is written already."""


def write_label_png(
    path: Path, label_map: Int[np.ndarray, "H W"], *, labels: Sequence[str]
) -> None:
    """Write label_map (0 = none, k = the k-th label) as a PNG of the same size.

    Up to 254 classes the file is an 8-bit palette image, coloured as in the overlay; above that
    it is 16-bit grey. Either way the stored number is the label.
    """
    if len(labels) <= MAX_CLASSES_8_BIT:
        image = Image.fromarray(label_map.astype(np.uint8))
        image.putpalette(_png_palette(labels))
    else:
        image = Image.fromarray(label_map.astype(np.uint16))
    write_atomically(path, encode_png(image))


def encode_png(image: Image.Image) -> bytes:
    """Return an image as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def read_label_png(path: Path) -> Int[np.ndarray, "H W"]:
    """The label map of a file that write_label_png wrote."""
    with Image.open(path) as image:
        return np.asarray(image).astype(np.int32)


def write_classes_json(path: Path, labels: Sequence[str]) -> None:
    """Write what the numbers of a label PNG mean: entry k of "labels" is the number k.

    The layout is the one a folder of masks is read with, so written masks can be evaluated.
    """
    ignore = [0, IGNORE_8_BIT] if len(labels) <= MAX_CLASSES_8_BIT else [0]
    colours = [NONE_COLOUR, *class_colours(labels).tolist()]
    content = {
        "labels": ["(none)", *labels],
        "ignore": ignore,
        "colours": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours],
    }
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())


def _png_palette(labels: Sequence[str]) -> bytes:
    """256 RGB triples: none, the classes, white for what is left (ignore)."""
    palette = np.full((256, 3), 255, dtype=np.uint8)
    palette[0] = NONE_COLOUR
    palette[1 : len(labels) + 1] = class_colours(labels)
    return palette.tobytes()
