"""Published mIoU in percent, each row with its source and protocol. None of it was measured here.

The figures are in published.csv. A figure that could not be traced to a source is left out.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

_NO_FIGURES = ("method", "backbone", "training", "mean", "source", "protocol")


@dataclass(frozen=True)
class PublishedRow:
    """One method with one backbone, as one source reports it."""

    method: str
    backbone: str
    training: str
    """What was learned or used besides the frozen CLIP; "none" for training-free methods."""
    miou: Mapping[str, float]
    """Percent, by benchmark."""
    source: str
    protocol: str
    mean: float | None
    """Over all eight benchmarks, where the source reports it."""


def _read() -> tuple[PublishedRow, ...]:
    table = resources.files("pacl.evaluation") / "published.csv"
    return tuple(
        PublishedRow(
            method=row["method"],
            backbone=row["backbone"],
            training=row["training"],
            miou={k: float(row[k]) for k in row if k not in _NO_FIGURES and row[k]},
            source=row["source"],
            protocol=row["protocol"],
            mean=float(row["mean"]) if row["mean"] else None,
        )
        for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    )


PUBLISHED = _read()
"""ViT-B/16 first, then larger backbones."""
