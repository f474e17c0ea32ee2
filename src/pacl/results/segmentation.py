"""The result of segmenting one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pacl.errors import InputError
from pacl.results import objects
from pacl.results.writers import Writers
from pacl.results.writers.heatmap import draw_heatmap
from pacl.results.writers.overlay import draw_overlay
from pacl.results.writers.strips import count_labels, sum_by_label

if TYPE_CHECKING:
    from supervision import Detections


@dataclass(frozen=True, eq=False)
class Segmentation:
    """An image and the label of each of its pixels."""

    image: Image.Image
    """The image that was segmented: RGB, upright, H × W."""
    labels: tuple[str, ...]
    """The class names, in the order the user gave them."""
    label_map: Int[np.ndarray, "H W"]
    """0 = none of the labels, k = labels[k-1]."""
    scores: Float[np.ndarray, "H W"]
    """Probability in [0, 1] of each pixel's best label (also where the label is none)."""
    class_scores: Float[np.ndarray, "C rows columns"]
    """Score of each label on the patch grid (a cosine in [-1, 1]), before softmax."""
    source: str | None = None
    """Where the image came from, such as the path of its file."""
    candidates: tuple[int, ...] | None = None
    """Indices of the labels that competed in this image; None: all."""

    @property
    def areas(self) -> dict[str, float]:
        """Share of the image's pixels that each label covers, in [0, 1]."""
        counts = count_labels(self.label_map, len(self.labels))
        shares = counts / self.label_map.size
        return {label: float(shares[k]) for k, label in enumerate(self.labels, start=1)}

    def similarity(self, label: str) -> Float[np.ndarray, "H W"]:
        """Return the score of one label at every pixel: the patch scores, upsampled bilinearly.

        Raises:
            InputError: The label is not among `labels`.
        """
        if label not in self.labels:
            known = ", ".join(self.labels)
            raise InputError(f"no label {label!r} in this result", fix=f"choose one of: {known}")
        patch_scores = torch.from_numpy(self.class_scores[self.labels.index(label)])
        size_px = self.label_map.shape
        return F.interpolate(patch_scores[None, None], size_px, mode="bilinear")[0, 0].numpy()

    def overlay(self, *, opacity: float = 0.5, legend: bool = True) -> Image.Image:
        """Tint the image by label; see `pacl.results.writers.overlay.draw_overlay`."""
        return draw_overlay(self.image, self.label_map, self.labels, opacity=opacity, legend=legend)

    def heatmap(self, label: str, *, value_range: tuple[float, float] | None = None) -> Image.Image:
        """Show how well each place matches a label; see `pacl.results.writers.heatmap`."""
        return draw_heatmap(self.image, self.similarity(label), value_range=value_range)

    def describe(self, *, n_labels: int = 4) -> str:
        """Say in a line which labels cover most of the image, at most `n_labels` of them."""
        ranked = sorted(self.areas.items(), key=lambda each: -each[1])
        areas = ", ".join(f"{label} {area:.0%}" for label, area in ranked[:n_labels] if area > 0)
        return f"{self.source}: {areas or 'none of the labels'}"

    def to_dict(self) -> dict[str, Tensor]:
        """Return the form of transformers' results, see `pacl.results.objects.to_dict`."""
        return objects.to_dict(self)

    def to_coco(self, *, use_polygons: bool = False) -> dict[str, Any]:
        """Return COCO's JSON of this image, see `pacl.results.objects.to_coco`."""
        return objects.to_coco(self, use_polygons=use_polygons)

    def to_supervision(self) -> Detections:
        """Return supervision's detections, see `pacl.results.objects.to_supervision`."""
        return objects.to_supervision(self)

    def to_fiftyone(self) -> Any:
        """Return FiftyOne's label, see `pacl.results.objects.to_fiftyone`."""
        return objects.to_fiftyone(self)

    def save(
        self,
        directory: str | Path,
        *,
        formats: Sequence[str] = ("png", "overlay", "json"),
        stem: str | None = None,
    ) -> dict[str, Path]:
        """Write the result, each file whole or not at all.

        Args:
            directory: Made if it does not exist.
            formats: Names of `pacl.results.FORMATS`: "png" the label map, with classes.json beside
                it; "overlay" an image to look at; "json" areas and mean scores; "npz" all the
                arrays; "coco", "cvat" and others for other programs (docs/labels.md).
            stem: Beginning of the file names; None: the source's name.

        Returns:
            The path of each format's file.

        Raises:
            InputError: A format is unknown, or a file would fall on the source image.
            EnvironmentProblem: The folder cannot be written, or the disk is full.
        """
        writers = Writers(Path(directory), formats)
        files = writers.add(self, stem or (Path(self.source).stem if self.source else "image"))
        writers.close()
        return files

    def summary(self) -> dict[str, object]:
        """Return what the JSON file holds: size, and per label its number, area and mean score.

        Labels that did not compete in this image are left out.
        """
        found = []
        counts = count_labels(self.label_map, len(self.labels))
        sums = sum_by_label(self.scores, self.label_map, len(self.labels))
        for number, (label, area) in enumerate(self.areas.items(), start=1):
            if self.candidates is not None and number - 1 not in self.candidates:
                continue
            score = float(sums[number] / counts[number]) if area > 0 else None
            found.append({"id": number, "label": label, "area": area, "mean_score": score})
        return {
            "source": self.source,
            "width": self.image.width,
            "height": self.image.height,
            "none_area": float(counts[0] / self.label_map.size),
            "labels": found,
        }


@dataclass(frozen=True)
class Failure:
    """An image of a stream that could not be segmented."""

    source: str
    """Its name, such as the path of its file."""
    error: str
    """What was wrong, in words for the user."""

    def describe(self) -> str:
        """Say in a line which image it was, and what was wrong."""
        return self.error if self.source in self.error else f"{self.source}: {self.error}"
