"""Draw eight CamVid photographs with truth, prediction and heat maps of three phrases: one sheet.

    python recipes/photographs_sheet.py ../shared/data/camvid --model runs/photographs/best

The sheet is written to runs/photographs/sheet.png. The photographs may not be published: with
--without-photographs the sheet holds labels and heat maps alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pacl.api import Model, load
from pacl.data.images import open_image
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.datasets.segmentation.masks import MaskItem
from pacl.inference.config import SegmentConfig
from pacl.results.palette import class_colours
from pacl.results.sheets import Panel, draw_sheet
from pacl.results.writers.heatmap import draw_heatmap

WORDS = {
    "sky": "sky",
    "building": "building",
    "road": "road",
    "pavement": "sidewalk",
    "tree": "tree",
    "car": "car",
    "pedestrian": "person",
    "bicyclist": "cyclist",
    "fence": "fence",
}
"""CamVid's classes that count here, and the words to ask for them."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("camvid", type=Path, help="folder with images/ and masks/")
    parser.add_argument("--model", default="runs/photographs/best")
    parser.add_argument("--output", type=Path, default=Path("runs/photographs/sheet.png"))
    parser.add_argument("--phrases", default="parked cars,trees,a person walking")
    parser.add_argument("--n-images", type=int, default=8)
    parser.add_argument("--short-side-px", type=int)
    parser.add_argument("--smoothing", type=float)
    parser.add_argument("--without-photographs", action="store_true")
    args = parser.parse_args(argv)
    model, dataset = load(args.model), FolderDataset(args.camvid)
    config = SegmentConfig(short_side_px=args.short_side_px, smoothing=args.smoothing)
    places = np.linspace(0, len(dataset) - 1, args.n_images).round().astype(int)
    phrases = [phrase.strip() for phrase in args.phrases.split(",")]
    rows = [
        draw_row(
            model,
            dataset,
            dataset.items[place],
            phrases,
            config=config,
            has_photograph=not args.without_photographs,
        )
        for place in places
    ]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    rows[1:] = [[("", image) for _, image in row] for row in rows[1:]]
    colours = map(tuple, class_colours([*WORDS.values()]).tolist())
    draw_sheet(rows, args.output, legend=list(zip(WORDS.values(), colours, strict=True)))
    print(f"wrote {args.output}")


def draw_row(
    model: Model,
    dataset: FolderDataset,
    item: MaskItem,
    phrases: Sequence[str],
    *,
    config: SegmentConfig,
    has_photograph: bool,
) -> list[Panel]:
    image = open_image(item.image_path)
    backdrop = image if has_photograph else Image.new("RGB", image.size)
    found = model.segment(image, list(WORDS.values()), config=config)
    found = replace(found, image=backdrop)
    truth = replace(found, label_map=read_truth(dataset, item), image=Image.new("RGB", image.size))
    heat = model.segment(image, phrases, config=config)
    opacity = 0.65 if has_photograph else 1
    return [
        *([("photograph", image)] if has_photograph else []),
        ("truth", truth.overlay(legend=False, opacity=1)),
        ("prediction", found.overlay(legend=False, opacity=opacity)),
        *(
            (f"“{phrase}”", draw_heatmap(backdrop, heat.similarity(phrase), opacity=opacity))
            for phrase in phrases
        ),
    ]


def read_truth(dataset: FolderDataset, item: MaskItem) -> np.ndarray:
    """0 = a class that does not count, k = the k-th word."""
    numbers = np.zeros(dataset.ignore_label + 1, dtype=np.int32)
    for number, name in enumerate(WORDS, start=1):
        numbers[dataset.labels.names.index(name)] = number
    return numbers[dataset.read_mask(item)]


if __name__ == "__main__":
    main()
