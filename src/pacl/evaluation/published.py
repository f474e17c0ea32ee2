"""Published mIoU in percent, each with its source and protocol. Nothing here was measured by us.

Rows whose figures could not be traced to a source are left out, and so are single figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_ORDER = (
    "voc21",
    "context60",
    "coco-object",
    "voc20",
    "context59",
    "coco-stuff171",
    "cityscapes",
    "ade150",
)
TRIDENT = "table in the Trident repository (ICCV 2025)"
DECLIP = "DeCLIP paper, table 5"
SC_CLIP = "SC-CLIP paper, text"
CORR_CLIP = "CorrCLIP repository, README"

STANDARD = "standard: all classes compete, original resolution; windows of its authors"
STANDARD_PAMR = f"{STANDARD}; with PAMR"


@dataclass(frozen=True)
class PublishedRow:
    """One method with one backbone, as one source gives it."""

    method: str
    backbone: str
    training: str
    """What was learned or used besides the frozen CLIP; "none" for training-free methods."""
    miou: Mapping[str, float]
    """Percent, by benchmark."""
    source: str
    protocol: str = STANDARD
    mean: float | None = None
    """Over all eight sets, where the source gives it."""


def _row(*percent: float) -> dict[str, float]:
    """Figures of all eight sets, in the order that the sources use."""
    return dict(zip(_ORDER, percent, strict=True))


PUBLISHED = (
    PublishedRow("CLIP", "ViT-B/16", "none",
                 _row(16.4, 8.4, 5.6, 41.9, 9.2, 4.4, 5.0, 2.9), TRIDENT, mean=11.7),
    PublishedRow("CLIP", "ViT-B/16", "none",
                 _row(18.8, 9.9, 8.1, 49.4, 11.1, 5.7, 6.5, 3.1), DECLIP, mean=14.1),
    PublishedRow("MaskCLIP", "ViT-B/16", "none",
                 _row(43.4, 23.2, 20.6, 74.9, 26.4, 16.7, 24.9, 11.9), TRIDENT, mean=30.3),
    PublishedRow("ReCo", "ViT-B/16", "none",
                 _row(25.1, 19.9, 15.7, 57.7, 22.3, 14.8, 21.6, 11.2), TRIDENT, mean=23.5),
    PublishedRow("GroupViT", "own", "image-text pairs",
                 _row(52.3, 18.7, 27.5, 79.7, 23.4, 15.3, 18.5, 10.4), DECLIP, mean=30.7),
    PublishedRow("TCL", "ViT-B/16", "image-text pairs",
                 _row(51.2, 24.3, 30.4, 77.5, 30.3, 19.6, 23.5, 14.9), TRIDENT, mean=33.9),
    PublishedRow("TCL", "ViT-B/16", "image-text pairs",
                 {"voc21": 55.0, "context60": 30.4, "coco-object": 31.6},
                 "TCL's figures as cited by later papers", STANDARD_PAMR),
    PublishedRow("SegCLIP", "ViT-B/16", "image-text pairs",
                 {"voc21": 52.6, "context60": 24.7, "coco-object": 26.5}, "DiffCut paper"),
    PublishedRow("OVDiff", "ViT-B/16", "diffusion model",
                 _row(66.3, 29.7, 34.6, 80.9, 32.9, 20.3, 23.4, 14.1), TRIDENT, mean=37.8),
    PublishedRow("SCLIP", "ViT-B/16", "none",
                 _row(59.1, 30.4, 30.5, 80.4, 34.2, 22.4, 32.2, 16.1), TRIDENT, mean=38.2),
    PublishedRow("SCLIP", "ViT-B/16", "none",
                 _row(59.63, 31.74, 33.52, 81.54, 34.46, 22.77, 32.34, 16.45),
                 "SCLIP repository, README", "sclip", mean=39.1),
    PublishedRow("ClearCLIP", "ViT-B/16", "none",
                 _row(51.8, 32.6, 33.0, 80.9, 35.9, 23.9, 30.0, 16.7), DECLIP, mean=38.1),
    PublishedRow("NACLIP", "ViT-B/16", "none",
                 _row(58.9, 32.2, 33.2, 79.7, 35.2, 23.3, 35.5, 17.4), TRIDENT, mean=39.4),
    PublishedRow("NACLIP", "ViT-B/16", "none",
                 _row(64.07, 34.99, 36.19, 83.03, 38.35, 25.69, 38.27, 19.05),
                 "NACLIP repository, README", "naclip, with PAMR", mean=42.46),
    PublishedRow("CLIP-DINOiser", "ViT-B/16", "DINO",
                 _row(62.1, 32.4, 34.8, 80.9, 35.9, 24.6, 31.7, 20.0), TRIDENT, mean=40.3),
    PublishedRow("DeCLIP", "ViT-B/16", "distilled from DINOv2",
                 _row(59.7, 35.3, 36.4, 85.0, 39.2, 25.3, 32.8, 21.9), DECLIP, mean=41.9),
    PublishedRow("ProxyCLIP", "ViT-B/16", "DINO ViT-B/8",
                 _row(61.3, 35.3, 37.5, 80.3, 39.1, 26.5, 38.1, 20.2), TRIDENT, mean=42.3),
    PublishedRow("SC-CLIP", "ViT-B/16", "none", {}, SC_CLIP, mean=43.9),
    PublishedRow("Trident", "ViT-B/16", "DINO, SAM",
                 _row(67.1, 38.6, 41.1, 84.5, 42.2, 28.3, 42.9, 21.9), TRIDENT, mean=45.8),
    PublishedRow("CorrCLIP", "ViT-B/16", "SAM2",
                 _row(74.8, 44.2, 43.7, 88.8, 48.8, 31.6, 49.4, 26.9), CORR_CLIP, mean=51.0),
    PublishedRow("CorrCLIP", "ViT-B/16", "EntitySeg",
                 _row(76.2, 45.7, 44.5, 89.6, 50.7, 32.4, 51.6, 28.6), CORR_CLIP, mean=52.4),
    PublishedRow("Talk2DINO", "DINOv2", "image-text pairs",
                 {"voc21": 65.8, "context59": 42.4, "coco-stuff171": 30.2, "cityscapes": 38.1},
                 "wizwand leaderboard page, best listed"),
    PublishedRow("CAT-Seg", "ViT-B/16", "supervised with masks of COCO-Stuff",
                 {"voc20": 94.6, "context59": 57.5, "ade150": 31.8},
                 "CAT-Seg repository, README", "supervised; its own windows"),
    PublishedRow("PACL", "ViT-B/16", "30 M image-text pairs",
                 {"voc20": 72.3, "context59": 50.1, "coco-stuff171": 38.8, "ade150": 31.4},
                 "Papers with Code, as claimed by the paper",
                 "unclear; never reproduced, perhaps only with the classes in the image"),
    PublishedRow("CLIP", "ViT-L/14", "none", {}, SC_CLIP, mean=6.6),
    PublishedRow("CorrCLIP", "ViT-L/14", "EntitySeg",
                 _row(78.9, 46.8, 51.0, 92.0, 53.0, 34.9, 53.7, 32.6), CORR_CLIP, mean=55.4),
    PublishedRow("CorrCLIPv2", "ViT-L/14", "RADIOv3, EntitySeg, bank of COCO images",
                 _row(82.3, 51.1, 58.0, 93.2, 56.8, 39.1, 59.2, 36.5),
                 "CorrCLIPv2 repository, README (2026)", mean=59.5),
    PublishedRow("SCLIP", "ViT-H/14", "none",
                 _row(43.8, 23.5, 24.6, 67.5, 25.6, 16.8, 19.5, 11.3), TRIDENT, mean=29.1),
    PublishedRow("ProxyCLIP", "ViT-H/14", "DINO ViT-B/8",
                 _row(65.0, 35.4, 38.6, 83.3, 39.6, 26.8, 42.0, 24.2), TRIDENT, mean=44.4),
    PublishedRow("Trident", "ViT-H/14", "DINO, SAM",
                 _row(70.8, 40.1, 42.2, 88.7, 44.3, 28.6, 47.6, 26.7), TRIDENT, mean=48.6),
    PublishedRow("CAT-Seg", "ViT-L/14@336", "supervised with masks of COCO-Stuff",
                 {"voc20": 97.0, "context59": 63.3, "ade150": 37.9},
                 "CAT-Seg repository, README", "supervised; its own windows"),
    PublishedRow("dino.txt", "DINOv3 ViT-L", "image-text pairs",
                 {"cityscapes": 36.9, "ade150": 24.7}, "DINOv3 repository, issue 64, table 16"),
)  # fmt: skip
"""ViT-B/16 first, then larger backbones."""


def published_for(benchmark: str) -> tuple[PublishedRow, ...]:
    """The rows that give a figure for a benchmark, best first."""
    rows = [row for row in PUBLISHED if benchmark in row.miou]
    return tuple(sorted(rows, key=lambda row: -row.miou[benchmark]))
