"""COCO-Stuff on COCO val2017 (Caesar et al. 2018): 171 classes, or its 80 things and background.

Both read the pixel maps as distributed: raw ids 0..89 are things and 91..181 stuff, with gaps,
255 is unlabelled. coco-stuff171 numbers the ids that exist 0..170 and ignores 255. coco-object
keeps the things as 1..80 and takes all the rest as background, *255 too*, which is therefore
scored, as in the conversion that all published figures use.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pacl.datasets.segmentation import voc
from pacl.datasets.segmentation.dataset import (
    IGNORED,
    Benchmark,
    MaskItem,
    Problem,
    find_base,
    find_images,
    names,
    need,
)
from pacl.errors import InputError

UNLABELLED = 255
GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
"""Raw ids that no pixel has: COCO dropped these categories."""
FIRST_STUFF, N_RAW = 91, 182

THINGS = names("""
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
    fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant,
    bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard,
    sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle,
    wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
    hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv,
    laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator,
    book, clock, vase, scissors, teddy bear, hair drier, toothbrush
""")

STUFF = names("""
    banner, blanket, branch, bridge, building, bush, cabinet, cage, cardboard, carpet, ceiling,
    tile ceiling, cloth, clothes, clouds, counter, cupboard, curtain, desk, dirt, door, fence,
    marble floor, floor, stone floor, tile floor, wood floor, flower, fog, food, fruit, furniture,
    grass, gravel, ground, hill, house, leaves, light, mat, metal, mirror, moss, mountain, mud,
    napkin, net, paper, pavement, pillow, plant, plastic, platform, playing field, railing,
    railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky, skyscraper, snow,
    solid material, stairs, stone, straw, structure, table, tent, textile, towel, tree, vegetable,
    brick wall, concrete wall, wall, wall panel, stone wall, tile wall, wood wall, water,
    water drops, window blind, window, wood
""")
"""The official names turned round: "wall-brick" is "brick wall", "wall-other" is "wall"."""

OFFICIAL = {
    **{name: f"{name}-other" for name in names("""
        building, ceiling, floor, food, furniture, ground, plant, sky, textile, wall, water, window
    """)},
    **{name: f"{name}-stuff" for name in ("desk", "door", "mirror")},
    **{f"{kind} {of}": f"{of}-{kind}" for of, kinds in {
        "ceiling": ("tile",),
        "floor": ("marble", "stone", "tile", "wood"),
        "wall": ("brick", "concrete", "stone", "tile", "wood"),
    }.items() for kind in kinds},
    "playing field": "playingfield",
    "solid material": "solid-other",
    "structure": "structural-other",
    "wall panel": "wall-panel",
    "water drops": "waterdrops",
    "window blind": "window-blind",
}  # fmt: skip
"""The official names of stuff, where ours turn them round."""

SYNONYMS = {
    "airplane": ("airplane", "aeroplane"),
    "cell phone": ("cell phone", "mobile phone"),
    "couch": ("couch", "sofa"),
    "hair drier": ("hair drier", "hair dryer"),
    "mouse": ("computer mouse",),
    "person": ("person", "man", "woman", "child"),
    "refrigerator": ("refrigerator", "fridge"),
    "remote": ("remote control",),
    "tie": ("tie", "necktie"),
    "tv": ("tv", "television"),
}
"""Our own words."""

OBJECT_SYNONYMS = {"person": (*voc.SYNONYMS["person"], "body")}
"""The words of SCLIP's protocol for COCO-Object, which stand in place of the name."""

DOWNLOAD = (
    "download http://images.cocodataset.org/zips/val2017.zip and "
    "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/"
    "stuffthingmaps_trainval2017.zip, and unpack them as "
    "coco_stuff164k/{images/val2017/*.jpg, annotations/val2017/*.png}"
)


def find_items(root: Path) -> tuple[MaskItem, ...]:
    """All of `images/val2017`, with the raw pixel maps of `annotations/val2017`."""
    base = find_base(
        root,
        ("coco_stuff164k",),
        holds="images/val2017",
        title="COCO val2017",
        download=DOWNLOAD,
    )
    masks = need(
        base / "annotations" / "val2017", kind="the folder of pixel maps", download=DOWNLOAD
    )
    image_paths = find_images(base / "images" / "val2017", "*.jpg", download=DOWNLOAD)
    items = tuple(MaskItem(path, masks / f"{path.stem}.png") for path in image_paths)
    converted = masks / f"{image_paths[0].stem}_labelTrainIds.png"
    if converted.is_file() and not items[0].mask_path.is_file():
        raise InputError(
            f"{masks} holds only files that another tool has converted",
            why=f"found {converted.name}, not {items[0].mask_path.name}",
            fix=f"put the original pixel maps beside them: {DOWNLOAD}",
        )
    return items


def explain_counts(counts: Mapping[int, int]) -> Problem | None:
    """Recognise masks that another tool has renumbered: they use ids that COCO does not have."""
    in_gaps = [raw for raw in GAPS if counts.get(raw, 0)]
    if not in_gaps:
        return None
    return Problem(
        "these COCO-Stuff masks are already converted by another tool",
        f"they use {', '.join(map(str, in_gaps))}, which the pixel maps leave out; converted "
        "again, most classes would be scored as others: mIoU near 0",
        f"put back the original pixel maps. {DOWNLOAD}",
    )


_THING_IDS = tuple(raw for raw in range(FIRST_STUFF) if raw not in GAPS)
_STUFF_IDS = tuple(range(FIRST_STUFF, N_RAW))

COCO_STUFF171 = Benchmark(
    name="coco-stuff171",
    title="COCO-Stuff val2017",
    class_names=(*THINGS, *STUFF),
    synonyms=SYNONYMS,
    background_words=(),
    class_of_raw={
        **{raw: k for k, raw in enumerate((*_THING_IDS, *_STUFF_IDS))},
        UNLABELLED: IGNORED,
    },
    n_images=(5000,),
    find_items=find_items,
    explain_counts=explain_counts,
    download=DOWNLOAD,
    official=OFFICIAL,
)

COCO_OBJECT = Benchmark(
    name="coco-object",
    title="COCO-Object val2017",
    class_names=("background", *THINGS),
    synonyms=OBJECT_SYNONYMS,
    background_words=voc.BACKGROUND_WORDS,
    class_of_raw={
        **{raw: k for k, raw in enumerate(_THING_IDS, start=1)},
        **dict.fromkeys((*_STUFF_IDS, UNLABELLED), 0),
    },
    n_images=(5000,),
    find_items=find_items,
    explain_counts=explain_counts,
    download=DOWNLOAD,
)
