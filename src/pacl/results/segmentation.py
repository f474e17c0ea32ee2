"""What segmenting one picture gives."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch.nn import functional as F

from pacl.errors import InputError
from pacl.results.writers.heatmap import draw_heatmap
from pacl.results.writers.overlay import draw_overlay
from pacl.results.writers.png import write_classes_json, write_label_png
from pacl.runtime.files import write_atomically

FORMATS = {"png": ".png", "overlay": "_overlay.png", "json": "_areas.json", "npz": ".npz"}
"""What a result can be saved as, and the end of each file's name."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A picture and the label of each of its pixels."""

    image: Image.Image
    """The picture that was segmented: RGB, upright, H × W."""
    labels: tuple[str, ...]
    """The class names, in the order the user gave them."""
    label_map: Int[np.ndarray, "H W"]
    """0 = none of the labels, k = labels[k-1]."""
    scores: Float[np.ndarray, "H W"]
    """Probability in [0, 1] of each pixel's best label (also where the label is none)."""
    class_scores: Float[np.ndarray, "C rows columns"]
    """Score of each label on the patch grid (a cosine in [-1, 1]), before softmax."""
    source: str | None = None
    """Where the picture came from, if from a file."""

    @property
    def areas(self) -> dict[str, float]:
        """Share of the picture's pixels that each label covers, in [0, 1]."""
        counts = np.bincount(self.label_map.ravel(), minlength=len(self.labels) + 1)
        shares = counts / self.label_map.size
        return {label: float(shares[k]) for k, label in enumerate(self.labels, start=1)}

    def similarity(self, label: str) -> Float[np.ndarray, "H W"]:
        """Score of one label at every pixel: the patch scores, upsampled bilinearly.

        Raises:
            InputError: label is not among labels.
        """
        if label not in self.labels:
            known = ", ".join(self.labels)
            raise InputError(f"no label {label!r} in this result", fix=f"choose one of: {known}")
        patch_scores = torch.from_numpy(self.class_scores[self.labels.index(label)])
        size_px = self.label_map.shape
        return F.interpolate(patch_scores[None, None], size_px, mode="bilinear")[0, 0].numpy()

    def overlay(self, *, opacity: float = 0.6, legend: bool = True) -> Image.Image:
        """The picture tinted by label; with a legend inside, see results.overlay.draw_overlay."""
        return draw_overlay(self.image, self.label_map, self.labels, opacity=opacity, legend=legend)

    def heatmap(self, label: str, *, value_range: tuple[float, float] | None = None) -> Image.Image:
        """How alike each place of the picture and one label are; see results.heatmap."""
        return draw_heatmap(self.image, self.similarity(label), value_range=value_range)

    def save(
        self,
        directory: str | Path,
        *,
        formats: Sequence[str] = ("png", "overlay", "json"),
        stem: str | None = None,
    ) -> dict[str, Path]:
        """Write the result, each file whole or not at all.

        Args:
            directory: made if it does not exist.
            formats: "png" the label map, with classes.json beside it; "overlay" a picture to look
                at; "json" areas and mean scores; "npz" all the arrays.
            stem: beginning of the file names; the source's name by default.

        Returns: the path of each format's file.

        Raises:
            InputError: a format is unknown, or a file would fall on the source picture.
            EnvironmentProblem: the folder cannot be written, or the disk is full.
        """
        unknown = [name for name in formats if name not in FORMATS]
        if unknown:
            known = ", ".join(FORMATS)
            raise InputError(f"unknown format {unknown[0]!r}", fix=f"choose from: {known}")
        directory = Path(directory)
        stem = stem or (Path(self.source).stem if self.source else "image")
        paths = {name: directory / (stem + FORMATS[name]) for name in formats}
        if self.source and Path(self.source).resolve() in {p.resolve() for p in paths.values()}:
            raise InputError(
                f"saving would overwrite the picture {self.source}", fix="choose another folder"
            )
        for name, path in paths.items():
            if name == "png":
                write_label_png(path, self.label_map, n_classes=len(self.labels))
                write_classes_json(directory / "classes.json", self.labels)
            elif name == "overlay":
                _write_picture(path, self.overlay())
            elif name == "json":
                content = json.dumps(self.summary(), indent=1, ensure_ascii=False)
                write_atomically(path, content.encode())
            else:
                self._write_npz(path)
        return paths

    def summary(self) -> dict[str, object]:
        """What the JSON file holds: size, and per label its number, area and mean score."""
        found = []
        for number, (label, area) in enumerate(self.areas.items(), start=1):
            score = float(self.scores[self.label_map == number].mean()) if area > 0 else None
            found.append({"id": number, "label": label, "area": area, "mean_score": score})
        return {
            "source": self.source,
            "width": self.image.width,
            "height": self.image.height,
            "none_area": float((self.label_map == 0).mean()),
            "labels": found,
        }

    def _write_npz(self, path: Path) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            label_map=self.label_map,
            scores=self.scores,
            class_scores=self.class_scores,
            labels=np.array(self.labels),
        )
        write_atomically(path, buffer.getvalue())


def _write_picture(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())


@dataclass(frozen=True)
class Failure:
    """A picture of a stream that could not be segmented."""

    source: str
    """The file."""
    error: str
    """What was wrong, in the words for the user."""
