"""The quickstart's sheet: images, their truth, and what CLIP and PACL make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pacl.api import Model
from pacl.data.images import open_image
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.datasets.storybook import LABELS, THINGS
from pacl.quickstart.world import SEGMENT, World
from pacl.results.sheets import draw_sheet


def draw_pictures(models: dict[str, Model], world: World, path: Path, n_rows: int = 5) -> None:
    """Draw rows of: image, truth, CLIP, PACL and PACL's heat maps of three phrases."""
    rows = []
    for item in _most_varied(world.test, n_rows):
        image, mask = open_image(item.image_path), world.test.read_mask(item)
        ours = models["PACL"].segment(image, world.test.labels, config=SEGMENT)
        theirs = models["CLIP"].segment(image, world.test.labels, config=SEGMENT)
        truth = replace(ours, label_map=mask + 1)
        phrases = sorted(
            (label for label in THINGS if truth.areas[label] > 0.01),
            key=lambda label: -truth.areas[label],
        )[:3]
        rows.append(
            [
                ("image", image),
                ("truth", truth.overlay(legend=False, opacity=1)),
                ("CLIP", theirs.overlay(legend=False, opacity=1)),
                ("PACL", ours.overlay(legend=False, opacity=1)),
                *((f"“{phrase}”", ours.heatmap(phrase)) for phrase in phrases),
            ]
        )
    draw_sheet(rows, path)


def _most_varied(dataset: FolderDataset, n_items: int) -> Sequence[Any]:
    """Find the first items with at least three things of some size, and six classes."""
    chosen = []
    for item in dataset:
        ids, counts = torch.from_numpy(dataset.read_mask(item)).unique(return_counts=True)
        large = [LABELS[int(k)] for k, n in zip(ids, counts, strict=True) if n > 0.012 * 128 * 128]
        if len(large) >= 6 and sum(label in THINGS for label in large) >= 3:
            chosen.append(item)
        if len(chosen) == n_items:
            break
    return chosen
