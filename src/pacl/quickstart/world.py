"""The drawn splits, and how all rows segment them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pacl.datasets.segmentation.folder import FolderDataset
from pacl.datasets.storybook import THINGS, draw_storybook
from pacl.inference.segmenter import SegmentConfig

SEGMENT = SegmentConfig(patch_stride_px=4)
"""The paper's stride trick, for every row: patches overlap by half."""
N_PER_THING = 10
N_COMPOSITIONS = 60


@dataclass(frozen=True)
class World:
    """The drawn splits."""

    train: Path
    validation: FolderDataset
    test: FolderDataset
    things: Path
    seen: Path
    heldout: Path


def draw_world(
    directory: Path,
    *,
    n_train: int,
    n_test: int,
    seed: int,
    on_progress: Callable[[int, int], None],
) -> World:
    """Draw what is not there yet; as many validation as test scenes."""
    folders = draw_storybook(
        directory,
        counts={
            "train": n_train,
            "validation": n_test,
            "test": n_test,
            "things": N_PER_THING * len(THINGS),
            "seen_compositions": N_COMPOSITIONS,
            "heldout_compositions": N_COMPOSITIONS,
        },
        seed=seed,
        on_progress=on_progress,
    )
    return World(
        train=folders["train"],
        validation=FolderDataset(folders["validation"]),
        test=FolderDataset(folders["test"]),
        things=folders["things"],
        seen=folders["seen_compositions"],
        heldout=folders["heldout_compositions"],
    )


def read_phrases(folder: Path) -> tuple[list[str], list[str]]:
    """Read class and phrase of each image of a split whose images show one thing each."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    return [row["label"] for row in table], [row["phrase"] for row in table]
