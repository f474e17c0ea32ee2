"""CamVid: street scenes from a car (Brostow, Fauqueur, Cipolla 2009), in its usual 11 classes."""

from __future__ import annotations

LABELS = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
"""Class names by id."""

IGNORE_IDS = (11,)
"""Unlabelled pixels, excluded from scoring."""
