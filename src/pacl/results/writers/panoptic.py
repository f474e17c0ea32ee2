"""COCO's panoptic form: PNGs whose colours are numbers of segments, and one JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pacl.results.writers.coco import categories, describe_image, short_names
from pacl.results.writers.parts import Parts
from pacl.results.writers.png import encode_png
from pacl.results.writers.writer import Result
from pacl.runtime.files import write_atomically


class PanopticWriter:
    """Writes panoptic/STEM.png and panoptic.json.

    Each label of an image is one segment, as COCO has it for stuff; its number is the label's.
    """

    def __init__(self) -> None:
        self._parts = Parts("panoptic", ".json")
        self._folder, self._labels = Path(), ()

    def mark(self, stem: str) -> str:
        """Return the path of the image's part of the JSON file, which follows its PNG."""
        return self._parts.mark(stem)

    def open(self, folder: Path, labels: Sequence[str]) -> None:
        """Begin or continue the folder."""
        self._folder, self._labels = folder, tuple(labels)
        self._parts.open(folder, labels)

    def add(self, result: Result, stem: str) -> Path:
        """Write the PNG: red + 256 green + 65536 blue is the label's number, 0 none."""
        path = self._folder / "panoptic" / f"{stem}.png"
        numbers = result.label_map.astype(np.uint32)
        rgb = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], axis=-1)
        write_atomically(path, encode_png(Image.fromarray(rgb.astype(np.uint8))))
        part = {
            "image": describe_image(result, stem),
            "annotation": {"file_name": path.name, "segments_info": _segments(result)},
        }
        self._parts.write(stem, json.dumps(part, ensure_ascii=False).encode())
        return path

    def close(self) -> None:
        """Write the JSON file."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, (_, path) in enumerate(self._parts, start=1):
            part = json.loads(path.read_text(encoding="utf-8"))
            images.append({"id": number} | part["image"])
            annotations.append({"image_id": number} | part["annotation"])
        names = short_names([image["file_name"] for image in images])
        content = {
            "images": [image | {"file_name": n} for image, n in zip(images, names, strict=True)],
            "annotations": annotations,
            "categories": [each | {"isthing": 0} for each in categories(self._labels)],
        }
        text = json.dumps(content, ensure_ascii=False)
        write_atomically(self._folder / "panoptic.json", text.encode())


def _segments(result: Result) -> list[dict[str, Any]]:
    segments = []
    for number in np.unique(result.label_map[result.label_map > 0]).tolist():
        rows, columns = np.nonzero(result.label_map == number)
        left, top = int(columns.min()), int(rows.min())
        width, height = int(columns.max()) - left + 1, int(rows.max()) - top + 1
        segments.append(
            {
                "id": number,
                "category_id": number,
                "area": len(rows),
                "bbox": [left, top, width, height],
                "iscrowd": 0,
            }
        )
    return segments
