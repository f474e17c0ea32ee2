"""Ablate PACL's choices on Storybook: one table row per variant, mean and spread over seeds.

    python recipes/ablate_storybook.py runs/ablation --seeds 0 1 2

Every variant changes one setting of the base (or several, as its name says) and trains on captions
only. Its scores are mIoU on the validation split at the native stride, and top-1 on images of one
thing each at half the stride; never the quickstart's test splits. Finished runs are kept and not
repeated. The table grows as variants finish: runs/ablation/table.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pacl.api import Model, load
from pacl.datasets.classification.dataset import ClassificationData, plain_labels
from pacl.datasets.classification.storybook import read_things
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.datasets.storybook import THINGS, draw_storybook
from pacl.evaluation.classification import evaluate_set
from pacl.evaluation.segmentation import evaluate_folder
from pacl.text.templates import PAPER7
from pacl.training.config import TrainConfig
from pacl.training.train import train

VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "patch temperature 1": {"patch_temperature": 1.0},
    "patch temperature 0.3": {"patch_temperature": 0.3},
    "patch temperature 0.1": {"patch_temperature": 0.1},
    "patch temperature 0.07": {"patch_temperature": 0.07},
    "patch temperature 0.03": {"patch_temperature": 0.03},
    "layer -1": {"token_layer": -1},
    "layer -2": {"token_layer": -2},
    "layer -3": {"token_layer": -3},
    "layer -5": {"token_layer": -5},
    "value tokens (maskclip)": {"token_kind": "maskclip", "token_layer": -1},
    "key-key tokens (naclip)": {"token_kind": "naclip", "token_layer": -1},
    "clip init": {"init": "clip"},
    "no nouns": {"noun_weight": 0.0},
    "noun weight 1": {"noun_weight": 1.0},
    "noun weight 4": {"noun_weight": 4.0},
    "lr 1e-3": {"lr": 1e-3},
    "paper": {"patch_temperature": 1.0, "token_layer": -1, "init": "random", "noun_weight": 1.0},
}


def score(model: Model, validation: FolderDataset, things: ClassificationData) -> dict[str, float]:
    """mIoU, and top-1 by compatibility and by CLIP's own embedding."""
    classified = evaluate_set(model, things, templates=PAPER7, patch_stride_px=4)
    return {
        "miou": evaluate_folder(model, validation).miou,
        "top1": classified.rows["pacl"].top1,
        "top1_clip": classified.rows["clip"].top1,
    }


def summary(values: list[float]) -> str:
    """Mean and standard deviation over the seeds."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="storybook")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--base", type=json.loads, default={}, help="JSON of settings for all")
    parser.add_argument("--n-train", type=int, default=1200)
    parser.add_argument("--n-validation", type=int, default=160)
    parser.add_argument("--n-per-thing", type=int, default=20)
    args = parser.parse_args()
    folders = draw_storybook(
        args.output / "storybook",
        counts={
            "train": args.n_train,
            "validation": args.n_validation,
            "things": args.n_per_thing * len(THINGS),
        },
        seed=200,
    )
    validation = FolderDataset(folders["validation"])
    things = ClassificationData(
        labels=plain_labels(THINGS), test=read_things(folders["things"]), train=None
    )
    base = TrainConfig(
        data=folders["train"],
        output=args.output,
        model=args.model,
        batch_size=64,
        lr=4e-3,
        epochs=8,
    )
    base = replace(base, **args.base)
    rows = ["| variant | mIoU | top-1 | top-1 of CLIP | seeds |", "|---|---|---|---|---|"]
    for name in args.variants:
        runs = []
        for seed in args.seeds:
            directory = args.output / f"{name} {seed}".replace(" ", "_")
            scores_path = directory / "scores.json"
            if not scores_path.is_file():
                config = replace(base, output=directory, seed=seed, **VARIANTS[name])
                model = load(args.model, embedder=train(config).checkpoint_dir)
                scores_path.write_text(json.dumps(score(model, validation, things)))
            runs.append(json.loads(scores_path.read_text()))
        columns = [summary([run[key] for run in runs]) for key in ("miou", "top1")]
        rows.append(
            f"| {name} | {' | '.join(columns)} | {runs[0]['top1_clip']:.3f} | {len(runs)} |"
        )
        print(rows[-1], flush=True)
        (args.output / "table.md").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
