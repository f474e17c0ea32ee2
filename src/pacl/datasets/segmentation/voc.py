"""Pascal VOC 2012 segmentation, val (Everingham et al. 2010): 20 classes, or 21 with background.

The files are the same for both: palette PNGs with 0 = background, 1..20 = classes, 255 = the void
border of objects. voc21 scores the background as class 0. voc20 ignores background pixels and
shifts the classes to 0..19 ("reduce zero label").
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
    listed_items,
    names,
    need,
)

VOID = 255
CLASSES = names("""
    aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, dining table, dog, horse,
    motorbike, person, potted plant, sheep, sofa, train, tv monitor
""")

OFFICIAL = {name: name.replace(" ", "") for name in CLASSES if " " in name}
"""As the development kit writes them."""

SYNONYMS = {
    "boat": ("ship",),
    "dining table": ("table",),
    "person": (
        "person",
        "person in shirt",
        "person in jeans",
        "person in dress",
        "person in sweater",
        "person in skirt",
        "person in jacket",
    ),
    "tv monitor": ("television monitor", "tv monitor", "monitor", "television", "screen"),
}
"""The words of SCLIP's protocol, which stand in place of the name."""

BACKGROUND_WORDS = names("""
    sky, wall, tree, wood, grass, road, sea, river, mountain, sands, desk, bed, building, cloud,
    lamp, door, window, wardrobe, ceiling, shelf, curtain, stair, floor, hill, rail, fence
""")
"""The stuff that SCLIP's and NACLIP's protocols let compete as "background"."""

DOWNLOAD = (
    "download VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ "
    "and unpack it in the root: VOCdevkit/VOC2012/{JPEGImages, SegmentationClass, "
    "ImageSets/Segmentation/val.txt}"
)


def find_items(root: Path) -> tuple[MaskItem, ...]:
    """The images that `ImageSets/Segmentation/val.txt` lists."""
    base = find_base(
        root,
        ("VOCdevkit/VOC2012", "VOC2012"),
        holds="JPEGImages",
        title="Pascal VOC 2012",
        download=DOWNLOAD,
    )
    masks = need(base / "SegmentationClass", kind="the folder of masks", download=DOWNLOAD)
    split = base / "ImageSets" / "Segmentation" / "val.txt"
    return listed_items(base, masks, split, download=DOWNLOAD)


MANY_PIXELS = 4_000_000
"""About 25 images: so many that their most frequent id is the data set's, not an image's."""


def explain_counts(counts: Mapping[int, int]) -> Problem | None:
    """Recognise masks that another tool has converted, above all those reduced to 20 classes.

    As distributed, about three quarters of all pixels are 0, a twentieth is void, and every
    image holds one of the 20 classes. Where void outweighs background, and the background or the
    class 20 never occurs, 0 was made 255; where one of the 20 classes outweighs it over many
    images, 0 was made another id.
    """
    n_background, n_last = counts.get(0, 0), counts.get(len(CLASSES), 0)
    if counts.get(VOID, 0) > n_background and not (n_background and n_last):
        return _reduced(
            "more pixels are 255 than 0, and "
            + ("no pixel is 20" if n_background else "no pixel is 0 (background)")
        )
    commonest = max(counts, key=lambda raw: counts[raw], default=0)
    if sum(counts.values()) >= MANY_PIXELS and commonest in range(1, len(CLASSES) + 1):
        return _reduced(f"more pixels are {commonest} than 0, as distributed the most frequent id")
    if n_background and not counts.keys() - {0, VOID}:
        return Problem(
            "these VOC masks hold no object",
            "every pixel is 0 (background) or 255, and each image of the set shows an object",
            f"put back the original SegmentationClass folder. {DOWNLOAD}",
        )
    return None


def _reduced(sign: str) -> Problem:
    return Problem(
        "these VOC masks are already reduced to 20 classes",
        f"{sign}; reduced again, every class would be scored as its neighbour: mIoU near 0",
        "put back the original SegmentationClass folder; voc20 and voc21 both read it as "
        f"distributed. {DOWNLOAD}",
    )


VOC21 = Benchmark(
    name="voc21",
    title="Pascal VOC 2012 val",
    class_names=("background", *CLASSES),
    synonyms=SYNONYMS,
    background_words=BACKGROUND_WORDS,
    class_of_raw={**{raw: raw for raw in range(21)}, VOID: IGNORED},
    n_images=(1449,),
    find_items=find_items,
    explain_counts=explain_counts,
    download=DOWNLOAD,
    official=OFFICIAL,
)

VOC20 = Benchmark(
    name="voc20",
    title="Pascal VOC 2012 val",
    class_names=CLASSES,
    synonyms=SYNONYMS,
    background_words=(),
    class_of_raw={0: IGNORED, **{raw: raw - 1 for raw in range(1, 21)}, VOID: IGNORED},
    n_images=(1449,),
    find_items=find_items,
    explain_counts=explain_counts,
    download=DOWNLOAD,
    official=OFFICIAL,
)
