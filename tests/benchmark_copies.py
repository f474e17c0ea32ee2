"""Small copies of the benchmarks in their official layouts: odd sizes, every id, an empty image."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pacl.datasets.segmentation.coco import GAPS
from pacl.datasets.segmentation.context import NAME_OF_DETAIL_ID

SIZES = ((11, 17), (19, 13), (14, 23))  # height, width; 187 pixels hold every id at least once


def every_id(ids: Sequence[int], size: tuple[int, int], *, filler: int) -> np.ndarray:
    """Each id in two pixels as far as there is room, the rest filler."""
    mask = np.full(size, filler, dtype=np.int64)
    values = np.tile(np.array(ids), 2)[: mask.size]
    mask.flat[: len(values)] = values
    return mask


def save_image(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), "grey").save(path)


def save_mask(path: Path, mask: np.ndarray, *, form: str = "grey") -> None:
    """As a PNG: "grey" of 8 bits, "palette" (with meaningless colours) or "16-bit"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(mask.astype(np.uint16 if form == "16-bit" else np.uint8))
    if form == "palette":
        picture.putpalette(bytes(range(255, -1, -1)) * 3)
    picture.save(path)


def copy_voc(root: Path) -> list[np.ndarray]:
    base = root / "VOCdevkit" / "VOC2012"
    masks = [
        every_id([*range(21), 255], SIZES[0], filler=0),
        every_id([20, 7, 7, 7], SIZES[1], filler=0),
        np.full((5, 3), 255),
    ]
    stems = ["2007_000033", "2007_000042", "2007_000061"]
    for stem, mask in zip(stems, masks, strict=True):
        save_image(base / "JPEGImages" / f"{stem}.jpg", mask.shape)
        save_mask(base / "SegmentationClass" / f"{stem}.png", mask, form="palette")
    save_image(base / "JPEGImages" / "2007_999999.jpg", (4, 4))  # of the training split
    split = base / "ImageSets" / "Segmentation" / "val.txt"
    split.parent.mkdir(parents=True)
    split.write_text("\n".join(stems) + "\n")
    return masks


def copy_coco(root: Path) -> list[np.ndarray]:
    base = root / "coco_stuff164k"
    ids = [raw for raw in range(182) if raw not in GAPS] + [255]
    masks = [every_id(ids, SIZES[0], filler=0), every_id([3, 150], SIZES[1], filler=95),
             np.full(SIZES[2], 255)]  # fmt: skip
    for number, (mask, form) in enumerate(zip(masks, ["grey", "16-bit", "grey"], strict=True)):
        save_image(base / "images" / "val2017" / f"{number:012}.jpg", mask.shape)
        save_mask(base / "annotations" / "val2017" / f"{number:012}.png", mask, form=form)
    return masks


def copy_ade(root: Path) -> list[np.ndarray]:
    base = root / "ADEChallengeData2016"
    masks = [every_id(range(151), SIZES[0], filler=3), every_id([150, 1], SIZES[1], filler=0),
             np.zeros(SIZES[2], dtype=np.int64)]  # fmt: skip
    for number, (mask, form) in enumerate(zip(masks, ["grey", "16-bit", "grey"], strict=True), 1):
        save_image(base / "images" / "validation" / f"ADE_val_{number:08}.jpg", mask.shape)
        save_mask(base / "annotations" / "validation" / f"ADE_val_{number:08}.png", mask, form=form)
    return masks


def copy_cityscapes(root: Path) -> list[np.ndarray]:
    base = root / "cityscapes"
    masks = [every_id(range(34), SIZES[0], filler=7), every_id([33, 0], SIZES[1], filler=26),
             np.ones(SIZES[2], dtype=np.int64)]  # fmt: skip
    for number, mask in enumerate(masks):
        city = ("frankfurt", "lindau", "munster")[number]
        stem = f"{city}_{number:06}_000019"
        save_image(base / "leftImg8bit" / "val" / city / f"{stem}_leftImg8bit.png", mask.shape)
        save_mask(base / "gtFine" / "val" / city / f"{stem}_gtFine_labelIds.png", mask)
    return masks


def copy_context(root: Path) -> list[np.ndarray]:
    """Masks as converted; on disk are only the run lengths they come from."""
    base = root / "VOCdevkit" / "VOC2010"
    detail_ids = [1, *NAME_OF_DETAIL_ID, 459]  # 1 and 459 are not among the 59
    images, annotations, masks = [], [], []
    for image_id, phase in ((8, "val"), (4, "train"), (6, "val"), (9, "val")):
        size = {8: SIZES[0], 4: (4, 4), 6: SIZES[1], 9: SIZES[2]}[image_id]
        name = f"2008_{image_id:06}.jpg"
        save_image(base / "JPEGImages" / name, size)
        images.append({"image_id": image_id, "file_name": name, "phase": phase,
                       "height": size[0], "width": size[1]})  # fmt: skip
        mask = np.zeros(size, dtype=np.int64)
        for k, detail_id in enumerate(detail_ids if image_id == 8 else [98, 1] * (image_id == 6)):
            region = np.zeros(size, dtype=bool)
            region.flat[3 * k : 3 * k + 4] = True  # overlaps the next by one pixel
            mask[region] = {d: c for c, d in enumerate(NAME_OF_DETAIL_ID, 1)}.get(detail_id, 0)
            annotations.append({"image_id": image_id, "category_id": detail_id,
                                "segmentation": run_lengths(region)})  # fmt: skip
        if phase == "val":
            masks.append((name, mask))
    content = {"images": images, "annos_segmentation": annotations}
    (base / "trainval_merged.json").write_text(json.dumps(content))
    return [mask for _, mask in sorted(masks, key=lambda pair: pair[0])]


def run_lengths(region: np.ndarray) -> dict[str, object]:
    """COCO's run lengths: down the columns, beginning with a run of 0 (maybe of length 0)."""
    runs = [(value, len(list(group))) for value, group in itertools.groupby(region.T.ravel())]
    lengths = [length for _, length in runs]
    return {"size": list(region.shape), "counts": [0, *lengths] if runs[0][0] else lengths}


COPIES: dict[str, Callable[[Path], list[np.ndarray]]] = {
    "voc20": copy_voc,
    "voc21": copy_voc,
    "context59": copy_context,
    "context60": copy_context,
    "coco-object": copy_coco,
    "coco-stuff171": copy_coco,
    "ade150": copy_ade,
    "cityscapes": copy_cityscapes,
}
