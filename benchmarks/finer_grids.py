"""The grids of `--grid` side by side: mIoU and processor time.

    python benchmarks/finer_grids.py runs/quickstart/pacl runs/quickstart/storybook/test
    python benchmarks/finer_grids.py vit-b-16       one image of 224 px, random weights, time alone

Grids run in turn, and `whole`, the paper's stride trick, comes first. One thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from random_clip import build_clip, draw_images, draw_names

from pacl.api import load
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.evaluation.segmentation import evaluate_folder
from pacl.inference.config import SegmentConfig
from pacl.inference.segmenter import build_scorer
from pacl.modeling.pacl import Pacl

GRIDS: tuple[str, ...] = get_args(get_type_hints(SegmentConfig)["grid"])
VIT = "vit-b-16"


def timed(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a run returns, and its CPU seconds."""
    started_s = time.process_time()
    found = run()
    return found | {"cpu_s": round(time.process_time() - started_s, 1)}


def encode_once(stride_px: int, grid: str, engine: str) -> Callable[[], dict[str, Any]]:
    """Score one image by a ViT-B/16 of random weights, after a first one."""
    clip = build_clip()
    model = Pacl(encoder=clip, embedder=None)
    model.use_engine(engine)
    scorer = build_scorer(model, draw_names(clip, 20), patch_stride_px=stride_px, grid=grid)
    images = draw_images(1, 224, seed=0, device=torch.device("cpu"))

    def run() -> dict[str, Any]:
        scorer(images)
        return {}

    run()
    return run


def evaluate(
    model: str, dataset: Path, config: SegmentConfig, engine: str
) -> Callable[[], dict[str, Any]]:
    """Evaluate a model on a dataset."""
    loaded = load(model, engine=engine)

    def run() -> dict[str, Any]:
        scores = evaluate_folder(loaded, FolderDataset(dataset), config=config)
        return {"mIoU": round(scores.miou, 4)}

    return run


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help=f"as --model of pacl; or {VIT}, without a dataset")
    parser.add_argument("dataset", type=Path, nargs="?", help="holds images/ and masks/")
    parser.add_argument("--stride-px", type=int, default=4)
    parser.add_argument("--short-side-px", type=int)
    parser.add_argument("--grids", nargs="+", default=list(GRIDS), choices=GRIDS)
    parser.add_argument("--engine", default="torch")
    args = parser.parse_args(arguments)
    if (args.dataset is None) != (args.model == VIT):
        parser.error(f"give a model and a dataset, or {VIT} alone")
    return args


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    for grid in args.grids:
        if args.model == VIT:
            run = encode_once(args.stride_px, grid, args.engine)
        else:
            config = SegmentConfig(
                patch_stride_px=args.stride_px, short_side_px=args.short_side_px, grid=grid
            )
            run = evaluate(args.model, args.dataset, config, args.engine)
        print(json.dumps({"grid": grid} | timed(run)), flush=True)


if __name__ == "__main__":
    main()
