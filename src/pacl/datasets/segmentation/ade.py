"""ADE20K scene parsing, validation (Zhou et al. 2017), in its 150 classes.

The files hold 0 = other, which is ignored, and 1..150, which become 0..149 ("reduce zero label").
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
    names,
    need,
)

CLASSES = names("""
    wall, building, sky, floor, tree, ceiling, road, bed, window, grass, cabinet, sidewalk,
    person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa,
    shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp,
    bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand,
    sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case,
    pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table,
    toilet, flower, book, hill, bench, countertop, stove, palm tree, kitchen island, computer,
    swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier,
    awning, street light, booth, television, airplane, dirt track, apparel, pole, land,
    bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain,
    conveyor belt, canopy, washing machine, toy, swimming pool, stool, barrel, basket, waterfall,
    tent, bag, minibike, cradle, oven, ball, food, step, tank, brand name, microwave, flowerpot,
    animal, bicycle, lake, dishwasher, projection screen, blanket, sculpture, exhaust hood,
    sconce, vase, traffic light, tray, trash can, fan, pier, crt screen, plate, monitor,
    bulletin board, shower, radiator, drinking glass, clock, flag
""")
"""One word of each official entry: the plain one of "ashcan, trash can, garbage can, ..."."""

OFFICIAL = {
    "window": "windowpane",
    "palm tree": "palm",
    "street light": "streetlight",
    "television": "television receiver",
    "conveyor belt": "conveyer belt",
    "washing machine": "washer",
    "toy": "plaything",
    "brand name": "trade name",
    "flowerpot": "pot",
    "projection screen": "screen",
    "exhaust hood": "hood",
    "trash can": "ashcan",
    "drinking glass": "glass",
}
"""The first word of the official entry, where ours is a plainer one of the same entry."""

SYNONYMS = {
    "airplane": ("airplane", "aeroplane", "plane"),
    "apparel": ("apparel", "clothes"),
    "bannister": ("bannister", "balustrade", "handrail"),
    "barrel": ("barrel", "cask"),
    "blind": ("blind", "window screen"),
    "booth": ("booth", "cubicle", "stall", "kiosk"),
    "brand name": ("brand name", "trade name"),
    "buffet": ("buffet", "sideboard"),
    "bulletin board": ("bulletin board", "notice board"),
    "car": ("car", "automobile"),
    "case": ("case", "display case", "showcase", "vitrine"),
    "column": ("column", "pillar"),
    "curtain": ("curtain", "drape", "drapery"),
    "door": ("door", "double door"),
    "earth": ("earth", "ground"),
    "fireplace": ("fireplace", "hearth"),
    "flowerpot": ("pot", "flowerpot"),
    "grandstand": ("grandstand", "covered stand"),
    "hovel": ("hovel", "hut", "shack", "shanty"),
    "land": ("land", "soil"),
    "minibike": ("minibike", "motorbike"),
    "painting": ("painting", "picture"),
    "person": ("person", "man", "woman", "child"),
    "pier": ("pier", "wharf", "dock"),
    "poster": ("poster", "placard"),
    "refrigerator": ("refrigerator", "icebox"),
    "rock": ("rock", "stone"),
    "rug": ("rug", "carpet"),
    "sidewalk": ("sidewalk", "pavement"),
    "signboard": ("signboard", "sign"),
    "sofa": ("sofa", "couch"),
    "stove": ("stove", "kitchen stove", "cooking stove"),
    "street light": ("street light", "street lamp"),
    "television": ("television", "tv"),
    "toy": ("toy", "plaything"),
    "traffic light": ("traffic light", "traffic signal"),
    "trash can": ("trash can", "garbage can", "dustbin"),
    "wardrobe": ("wardrobe", "closet"),
    "window": ("window", "windowpane"),
}
"""More words of the official entries, where they name the same thing."""

DOWNLOAD = (
    "download http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip and unpack it "
    "in the root: ADEChallengeData2016/{images/validation/*.jpg, annotations/validation/*.png}"
)


def find_items(root: Path) -> tuple[MaskItem, ...]:
    """All of `images/validation`."""
    base = find_base(
        root,
        ("ade/ADEChallengeData2016", "ADEChallengeData2016"),
        holds="images/validation",
        title="ADE20K",
        download=DOWNLOAD,
    )
    masks = need(base / "annotations" / "validation", kind="the folder of masks", download=DOWNLOAD)
    image_paths = find_images(base / "images" / "validation", "*.jpg", download=DOWNLOAD)
    return tuple(MaskItem(path, masks / f"{path.stem}.png") for path in image_paths)


def explain_counts(counts: Mapping[int, int]) -> Problem | None:
    """Recognise masks that another tool has reduced, and those of the full data set."""
    if counts.get(255, 0) and max(counts) == 255:
        return Problem(
            "these ADE20K masks are already reduced to 0..149",
            "they hold 255, which the distributed ones do not; reduced again, every class would "
            "be scored as its neighbour: mIoU near 0",
            f"put back the original annotations folder. {DOWNLOAD}",
        )
    if max(counts, default=0) > 255:
        return Problem(
            "these are masks of the full ADE20K, not of its 150 classes",
            f"ids go up to {max(counts)}; 0 to 150 are expected",
            DOWNLOAD,
        )
    return None


ADE150 = Benchmark(
    name="ade150",
    title="ADE20K validation",
    class_names=CLASSES,
    synonyms=SYNONYMS,
    background_words=(),
    class_of_raw={0: IGNORED, **{raw: raw - 1 for raw in range(1, 151)}},
    n_images=(2000,),
    find_items=find_items,
    explain_counts=explain_counts,
    download=DOWNLOAD,
    official=OFFICIAL,
)
