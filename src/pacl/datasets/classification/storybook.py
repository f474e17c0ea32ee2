"""Storybook's things: drawn images of one thing each, made where they are not there yet."""

from __future__ import annotations

import csv
from pathlib import Path

from pacl.datasets.classification.dataset import (
    ClassificationBenchmark,
    ClassificationData,
    Split,
    plain_labels,
    split_of,
)
from pacl.datasets.storybook import THINGS, draw_storybook
from pacl.text.templates import PAPER7

N_TEST, N_TRAIN = 400, 200
_TEST_SEED, _TRAIN_SEED = 0, 1
_REDRAW = "delete the folder; it is drawn again"


def read(root: Path) -> ClassificationData:
    """Draws `storybook-things/test` and `/train` below root; the same images each time."""
    base = root / "storybook-things"
    return ClassificationData(
        labels=plain_labels(THINGS),
        test=_draw(base / "test", N_TEST, _TEST_SEED),
        train=_draw(base / "train", N_TRAIN, _TRAIN_SEED),
    )


def _draw(directory: Path, n_images: int, seed: int) -> Split:
    return read_things(draw_storybook(directory, counts={"things": n_images}, seed=seed)["things"])


def read_things(folder: Path) -> Split:
    """The drawn split "things" in a folder, with the indices into THINGS."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = [(folder / row["file_name"], row["label"]) for row in csv.DictReader(file)]
    files = ((path, THINGS.index(label)) for path, label in rows)
    return split_of(files, title=str(folder), download=_REDRAW)


STORYBOOK_THINGS = ClassificationBenchmark(
    name="storybook-things",
    title="Storybook's things",
    templates=PAPER7,
    n_classes=len(THINGS),
    n_images=N_TEST,
    usual_metric="top1",
    read=read,
    download="it is drawn, not downloaded",
)
