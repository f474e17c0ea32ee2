"""Pascal Context, val (Mottaghi et al. 2014): 59 classes, or 60 with background, on VOC 2010.

The truth is distributed as run-length codes in `trainval_merged.json` of the Detail challenge. On
first use it is converted to `SegmentationClassContext/*.png`: 0 = everything but the 59 classes,
1..59 = the classes in the order of their Detail ids, which is alphabetical. context60 scores 0 as
background; context59 ignores it and shifts the classes to 0..58.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pacl.datasets.segmentation.dataset import (
    IGNORED,
    Benchmark,
    MaskItem,
    Problem,
    find_base,
    listed_items,
    need,
)
from pacl.errors import EnvironmentProblem, InputError

_log = logging.getLogger(__name__)

NAME_OF_DETAIL_ID = {
    2: "aeroplane", 9: "bag", 18: "bed", 19: "bedclothes", 22: "bench", 23: "bicycle", 25: "bird",
    31: "boat", 33: "book", 34: "bottle", 44: "building", 45: "bus", 46: "cabinet", 59: "car",
    65: "cat", 68: "ceiling", 72: "chair", 80: "cloth", 85: "computer", 98: "cow", 104: "cup",
    105: "curtain", 113: "dog", 115: "door", 144: "fence", 158: "floor", 159: "flower",
    162: "food", 187: "grass", 189: "ground", 207: "horse", 220: "keyboard", 232: "light",
    258: "motorbike", 259: "mountain", 260: "mouse", 284: "person", 295: "plate",
    296: "platform", 308: "potted plant", 324: "road", 326: "rock", 347: "sheep",
    349: "shelves", 354: "sidewalk", 355: "sign", 360: "sky", 366: "snow", 368: "sofa",
    397: "table", 415: "track", 416: "train", 420: "tree", 424: "truck", 427: "tv monitor",
    440: "wall", 445: "water", 454: "window", 458: "wood",
}  # fmt: skip
"""The 59 classes among the 459 of the Detail annotations."""
CLASSES = tuple(NAME_OF_DETAIL_ID.values())

OFFICIAL = {"potted plant": "pottedplant", "tv monitor": "tvmonitor"}
"""As the official list writes them."""

SYNONYMS = {
    "aeroplane": ("aeroplane", "airplane"),
    "bedclothes": ("bedclothes", "bedding", "blanket"),
    "light": ("light", "lamp"),
    "mouse": ("computer mouse",),
    "person": ("person", "man", "woman", "child"),
    "platform": ("platform", "railway platform"),
    "sofa": ("sofa", "couch"),
    "track": ("railway track", "rails"),
    "tv monitor": ("tv monitor", "television", "monitor", "screen"),
}
"""Our own words."""

JSON_NAME = "trainval_merged.json"
DOWNLOAD = (
    "download VOCtrainval_03-May-2010.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2010/ "
    "and trainval_merged.json from https://codalabuser.blob.core.windows.net/public/"
    "trainval_merged.json (Detail; also through https://cs.stanford.edu/~roozbeh/pascal-context/), "
    "and lay them out as VOCdevkit/VOC2010/{JPEGImages, trainval_merged.json}; "
    "the masks are made from it on first use"
)


def find_items(root: Path) -> tuple[MaskItem, ...]:
    """The images that `ImageSets/SegmentationContext/val.txt` lists; converts on first use."""
    base = find_base(
        root,
        ("VOCdevkit/VOC2010", "VOC2010"),
        holds="JPEGImages",
        title="Pascal VOC 2010",
        download=DOWNLOAD,
    )
    masks, split = base / "SegmentationClassContext", _split_path(base)
    if not masks.is_dir():
        need(base / JSON_NAME, kind="the annotations' file", download=DOWNLOAD)
        convert_annotations(base)
    remake = f"remove {masks} to have both made again, or {DOWNLOAD}"
    return listed_items(base, masks, split, download=remake)


def convert_annotations(base: Path) -> int:
    """Make `SegmentationClassContext/*.png` and the split file of the val images.

    Args:
        base: The VOC2010 folder, which holds `trainval_merged.json`.

    Returns: how many masks were made.

    Raises:
        InputError: The file is not the one of the Detail challenge.
        EnvironmentProblem: The folder cannot be written, or pycocotools is not installed.

    The folder of masks appears when all are done. Where annotations overlap, the later one counts.
    """
    images, annotations = _read_json(base / JSON_NAME)
    masks = base / "SegmentationClassContext"
    unfinished = masks.with_suffix(".unfinished")
    _log.info("converting %s annotations to %s, once", f"{len(images):,}", masks)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        for n_done, image in enumerate(images):
            if n_done and n_done % 500 == 0:
                _log.info("converted %s of %s", f"{n_done:,}", f"{len(images):,}")
            mask = draw_mask(annotations[image["image_id"]], image["height"], image["width"])
            Image.fromarray(mask).save(unfinished / f"{Path(image['file_name']).stem}.png")
        if not _split_path(base).is_file():
            _split_path(base).parent.mkdir(parents=True, exist_ok=True)
            stems = sorted(path.stem for path in unfinished.iterdir())
            _split_path(base).write_text("\n".join(stems) + "\n")
        unfinished.rename(masks)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot write the masks of Pascal Context in {base}",
            why=str(error),
            fix="make the folder writable for the first use, or copy the data set to one that is",
        ) from error
    return len(images)


def draw_mask(
    annotations: list[dict[str, Any]], height: int, width: int
) -> UInt8[np.ndarray, "H W"]:
    """One mask from run-length coded regions, later ones over earlier ones.

    Raises:
        EnvironmentProblem: The package pycocotools is not installed.
    """
    try:
        from pycocotools import mask as run_lengths
    except ImportError as error:
        raise EnvironmentProblem(
            "Pascal Context's annotations need pycocotools",
            why=str(error),
            fix="pip install pycocotools",
        ) from error
    id_of = {detail_id: k for k, detail_id in enumerate(NAME_OF_DETAIL_ID, start=1)}
    mask = np.zeros((height, width), dtype=np.uint8)
    for annotation in annotations:
        code = annotation["segmentation"]
        if isinstance(code["counts"], list):
            code = run_lengths.frPyObjects(code, height, width)
        with warnings.catch_warnings():
            # pycocotools 2.0.11 has not followed a change in NumPy 2; its result is right.
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            region = run_lengths.decode(code).astype(bool)
        mask[region] = id_of.get(annotation["category_id"], 0)
    return mask


def _read_json(path: Path) -> tuple[list[dict[str, Any]], Mapping[Any, list[dict[str, Any]]]]:
    """The val images, and the annotations of each image id."""
    by_image: defaultdict[Any, list[dict[str, Any]]] = defaultdict(list)
    try:
        content = json.loads(path.read_bytes())
        images = [image for image in content["images"] if image["phase"] == "val"]
        for annotation in content["annos_segmentation"]:
            by_image[annotation["image_id"]].append(annotation)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not the Detail challenge's trainval_merged.json",
            why=f"{type(error).__name__}: {error}",
            fix=DOWNLOAD,
        ) from error
    return images, by_image


def _split_path(base: Path) -> Path:
    return base / "ImageSets" / "SegmentationContext" / "val.txt"


def explain_counts(counts: Mapping[int, int]) -> Problem | None:
    """Recognise masks reduced to 59 classes, and those with all 459."""
    remake = (
        "remove the folder SegmentationClassContext; pacl makes it again from trainval_merged.json"
    )
    if any(raw > 255 for raw in counts):
        return Problem(
            "these Pascal Context masks hold all 459 classes",
            f"ids go up to {max(counts)}; 0 to 59 are expected",
            remake,
        )
    if counts.get(255, 0):
        return Problem(
            "these Pascal Context masks are already reduced to 59 classes",
            "they hold 255, which the conversion does not make; reduced again, every class would "
            "be scored as its neighbour: mIoU near 0",
            remake,
        )
    return None


CONTEXT60 = Benchmark(
    name="context60",
    title="Pascal Context val",
    class_names=("background", *CLASSES),
    synonyms=SYNONYMS,
    background_words=("background",),
    class_of_raw={raw: raw for raw in range(60)},
    n_images=(5104, 5105),
    find_items=find_items,
    explain_counts=explain_counts,
    download=DOWNLOAD,
    official=OFFICIAL,
)

CONTEXT59 = Benchmark(
    name="context59",
    title="Pascal Context val",
    class_names=CLASSES,
    synonyms=SYNONYMS,
    background_words=(),
    class_of_raw={0: IGNORED, **{raw: raw - 1 for raw in range(1, 60)}},
    n_images=(5104, 5105),
    find_items=find_items,
    explain_counts=explain_counts,
    download=DOWNLOAD,
    official=OFFICIAL,
)
