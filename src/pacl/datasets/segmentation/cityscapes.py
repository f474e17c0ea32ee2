"""Cityscapes, val (Cordts et al. 2016): 19 classes of street scenes.

The files `*_gtFine_labelIds.png`, as distributed, hold 34 label ids. 19 of them are scored, as
"train ids" 0..18; the others are ignored. No file needs to be made with other scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pacl.datasets.segmentation.dataset import (
    IGNORED,
    Benchmark,
    MaskItem,
    Problem,
    find_base,
    find_images,
    need,
)

NAME_OF_LABEL_ID = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip
"""The label ids that are scored, in the order of their train ids."""
N_LABEL_IDS = 34
CLASSES = tuple(NAME_OF_LABEL_ID.values())

SYNONYMS = {
    "person": ("person", "pedestrian"),
    "rider": ("rider", "cyclist", "motorcyclist"),
    "terrain": ("terrain", "grass", "soil", "sand"),
    "train": ("train", "tram"),
    "vegetation": ("vegetation", "tree", "hedge", "bush"),
}
"""Our own words, after the official definitions of the classes."""

DOWNLOAD = (
    "register at https://www.cityscapes-dataset.com, download leftImg8bit_trainvaltest.zip and "
    "gtFine_trainvaltest.zip, and unpack them as cityscapes/{leftImg8bit/val/CITY/"
    "*_leftImg8bit.png, gtFine/val/CITY/*_gtFine_labelIds.png}"
)


N_TRAIN_IDS = 19
"""Their ids are 0..18; some tools write 19 in place of 255."""


def find_items(root: Path) -> tuple[MaskItem, ...]:
    """All images of the val cities."""
    base = find_base(
        root, ("cityscapes",), holds="leftImg8bit/val", title="Cityscapes", download=DOWNLOAD
    )
    masks = need(base / "gtFine" / "val", kind="the folder of masks", download=DOWNLOAD)
    images = base / "leftImg8bit" / "val"
    image_paths = find_images(images, "*/*_leftImg8bit.png", download=DOWNLOAD)
    return tuple(MaskItem(path, _mask_path(masks, path)) for path in image_paths)


def _mask_path(masks: Path, image_path: Path) -> Path:
    place = image_path.name.removesuffix("_leftImg8bit.png")
    return masks / image_path.parent.name / f"{place}_gtFine_labelIds.png"


def explain_counts(counts: Mapping[int, int]) -> Problem | None:
    """Recognise train ids stored under the name of label ids."""
    has_high_ids = any(n and N_TRAIN_IDS < raw < 255 for raw, n in counts.items())
    if not counts.get(255, 0) and (has_high_ids or not counts):
        return None
    return Problem(
        "these Cityscapes masks hold train ids, not label ids",
        f"labelIds files have no 255 and go beyond {N_TRAIN_IDS} (cars are 26); converted again, "
        "most classes would be scored as others: mIoU near 0",
        f"put back the original *_gtFine_labelIds.png files. {DOWNLOAD}",
    )


CITYSCAPES = Benchmark(
    name="cityscapes",
    title="Cityscapes val",
    class_names=CLASSES,
    synonyms=SYNONYMS,
    background_words=(),
    class_of_raw={
        **dict.fromkeys(range(N_LABEL_IDS), IGNORED),
        **{label_id: k for k, label_id in enumerate(NAME_OF_LABEL_ID)},
    },
    n_images=(500,),
    find_items=find_items,
    explain_counts=explain_counts,
    download=DOWNLOAD,
)
