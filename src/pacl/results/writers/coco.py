"""COCO's instances: one JSON file, an annotation for each connected region of a label."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pacl.results.regions import Region, find_regions, polygon, run_lengths
from pacl.results.writers.parts import Parts
from pacl.results.writers.writer import Result
from pacl.runtime.files import replacing
from pacl.runtime.packages import require_packages


class CocoWriter:
    """Writes coco.json; category k is the k-th label, pixels of no label are in no annotation.

    Args:
        use_polygons: Write each region as one polygon in place of compressed run lengths.
    """

    def __init__(self, *, use_polygons: bool = False) -> None:
        self._use_polygons = use_polygons
        self._name = "coco-polygons" if use_polygons else "coco"
        self._parts = Parts(self._name, ".json")
        self._path, self._labels = Path(), ()

    def mark(self, stem: str) -> str:
        """Return the path of the image's part of the file."""
        return self._parts.mark(stem)

    def open(self, folder: Path, labels: Sequence[str]) -> None:
        """Begin or continue the parts.

        Raises:
            EnvironmentProblem: The package pycocotools, which compresses run lengths, is missing.
        """
        if not self._use_polygons:
            require_packages(["pycocotools"], purpose="--formats coco")
        self._path, self._labels = folder / f"{self._name}.json", tuple(labels)
        self._parts.open(folder, labels)

    def add(self, result: Result, stem: str) -> Path:
        """Keep the image's annotations for the file, whose path is returned."""
        part = {
            "image": describe_image(result, stem),
            "annotations": describe_regions(result, use_polygons=self._use_polygons),
        }
        self._parts.write(stem, json.dumps(part, ensure_ascii=False).encode())
        return self._path

    def close(self) -> None:
        """Write the file, numbering images and annotations from 1."""
        images: list[dict[str, Any]] = []
        with replacing(self._path) as draft, draft.open("w", encoding="utf-8") as file:
            file.write('{"annotations": [')
            for number, annotation in enumerate(self._iter_annotations(images), start=1):
                text = json.dumps({"id": number} | annotation, ensure_ascii=False)
                file.write((",\n" if number > 1 else "\n") + text)
            names = short_names([image["file_name"] for image in images])
            for image, name in zip(images, names, strict=True):
                image["file_name"] = name
            rest = {"categories": categories(self._labels), "images": images}
            file.write("],\n" + json.dumps(rest, ensure_ascii=False)[1:])

    def _iter_annotations(self, images: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the parts' annotations, and collect their images."""
        for number, (_, path) in enumerate(self._parts, start=1):
            part = json.loads(path.read_text(encoding="utf-8"))
            images.append({"id": number} | part["image"])
            for annotation in part["annotations"]:
                yield annotation | {"image_id": number}


def categories(labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return COCO's list of classes, numbered from 1."""
    return [{"id": k, "name": label} for k, label in enumerate(labels, start=1)]


def describe_image(result: Result, stem: str) -> dict[str, Any]:
    """Return COCO's entry of an image, without its number."""
    height, width = result.label_map.shape
    return {"file_name": result.source or stem, "width": width, "height": height}


def describe_regions(result: Result, *, use_polygons: bool = False) -> list[dict[str, Any]]:
    """Return COCO's annotations of an image, without numbers of their own and of the image."""
    height, width = result.label_map.shape

    def outline_of(region: Region) -> list[list[int]] | dict[str, Any]:
        if use_polygons:
            return [polygon(region)]
        from pycocotools import mask

        counts = run_lengths(region, (height, width))
        whole: Any = {"size": [height, width], "counts": counts}
        return whole | {"counts": mask.frPyObjects(whole, height, width)["counts"].decode()}

    return [
        {
            "category_id": region.number,
            "segmentation": outline_of(region),
            "area": region.area,
            "bbox": list(region.bbox),
            "iscrowd": 0,
            "score": round(float(result.scores[region.rows, region.columns].mean()), 4),
        }
        for region in find_regions(result.label_map)
    ]


def short_names(sources: Sequence[str]) -> list[str]:
    """Name files from the deepest folder that holds them all, as importers look for them.

    Sources that are not all files, or have no folder in common, keep their names.
    """
    if not sources or any("://" in source for source in sources):
        return list(sources)
    try:
        common = os.path.commonpath([Path(source).parent for source in sources])
    except ValueError:  # absolute and relative, or two drives
        return list(sources)
    return [Path(source).relative_to(common).as_posix() for source in sources]
