"""Results as other libraries' objects; each library is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pacl.errors import EnvironmentProblem
from pacl.results.writers.coco import categories, describe_image, describe_regions
from pacl.results.writers.writer import Result
from pacl.runtime.packages import require_packages

if TYPE_CHECKING:
    from supervision import Detections

_16_BIT_FROM = 256


def to_dict(result: Result) -> dict[str, Tensor]:
    """Return what transformers' post-processing of semantic segmentation returns.

    Returns:
        "segmentation" (H, W): the index of each pixel's label among `labels`, -1 for none, which
        supervision's `from_transformers` takes for a class (`to_supervision` does not);
        "segmentation_scores" (C, H, W): the score of each label, upsampled bilinearly.
    """
    scores = torch.from_numpy(result.class_scores)
    size_px = result.label_map.shape
    return {
        "segmentation": torch.from_numpy(result.label_map.astype(np.int64) - 1),
        "segmentation_scores": F.interpolate(scores[None], size_px, mode="bilinear")[0],
    }


def to_supervision(result: Result) -> Detections:
    """Return a detection per label in the image: mask, box, mean score, and name as data.

    Raises:
        EnvironmentProblem: The package supervision is not installed.
    """
    supervision = _import("supervision")
    numbers = np.unique(result.label_map[result.label_map > 0])
    if not len(numbers):
        return supervision.Detections.empty()
    masks = np.stack([result.label_map == number for number in numbers])
    return supervision.Detections(
        xyxy=supervision.mask_to_xyxy(masks).astype(np.float32),
        mask=masks,
        confidence=np.array([result.scores[mask].mean() for mask in masks], dtype=np.float32),
        class_id=numbers.astype(int) - 1,
        data={"class_name": np.array([result.labels[number - 1] for number in numbers])},
    )


def to_coco(result: Result, *, use_polygons: bool = False) -> dict[str, Any]:
    """Return COCO's JSON of this one image: an annotation per connected region of a label.

    Raises:
        EnvironmentProblem: The package pycocotools, which compresses run lengths, is missing.
    """
    if not use_polygons:
        require_packages(["pycocotools"], purpose="to_coco")
    regions = describe_regions(result, use_polygons=use_polygons)
    return {
        "images": [{"id": 1} | describe_image(result, "image")],
        "annotations": [{"id": k, "image_id": 1} | each for k, each in enumerate(regions, 1)],
        "categories": categories(result.labels),
    }


def to_fiftyone(result: Result) -> Any:
    """Return FiftyOne's label of this image; its mask targets are `{k: labels[k - 1]}`.

    Raises:
        EnvironmentProblem: The package fiftyone is not installed.
    """
    kind = np.uint8 if len(result.labels) < _16_BIT_FROM else np.uint16
    return _import("fiftyone").Segmentation(mask=result.label_map.astype(kind))


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise EnvironmentProblem(
            f"{name} is not installed", why="its objects need it", fix=f"pip install {name}"
        ) from error
