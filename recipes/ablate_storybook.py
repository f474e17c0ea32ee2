"""Ablate PACL's choices on Storybook: one table row per variant, mean and spread over seeds.

    python recipes/ablate_storybook.py runs/ablation --seeds 0 1 2

Every variant changes one setting of the base (or several, as its name says), trains on captions
only and is scored by mIoU on the validation split, never on the test split. Finished runs are kept
and not repeated. The table grows as variants finish: runs/ablation/table.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pacl.api import load
from pacl.data.folder import FolderDataset
from pacl.data.storybook import draw_storybook
from pacl.evaluate import evaluate_folder
from pacl.train import train
from pacl.train_config import TrainConfig

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="storybook")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--base", type=json.loads, default={}, help="JSON of settings for all")
    parser.add_argument("--n-train", type=int, default=1200)
    parser.add_argument("--n-validation", type=int, default=160)
    args = parser.parse_args()
    folders = draw_storybook(
        args.output / "storybook",
        counts={"train": args.n_train, "validation": args.n_validation},
        seed=200,
    )
    dataset = FolderDataset(folders["validation"])
    base = TrainConfig(
        data=folders["train"],
        output=args.output,
        model=args.model,
        batch_size=64,
        lr=4e-3,
        epochs=8,
    )
    base = replace(base, **args.base)
    rows = ["| variant | mIoU | seeds |", "|---|---|---|"]
    for name in args.variants:
        scores = []
        for seed in args.seeds:
            directory = args.output / f"{name} {seed}".replace(" ", "_")
            score_path = directory / "miou.json"
            if not score_path.is_file():
                config = replace(base, output=directory, seed=seed, **VARIANTS[name])
                checkpoint = train(config).checkpoint_dir
                report = evaluate_folder(load(args.model, embedder=checkpoint), dataset)
                score_path.write_text(json.dumps(report.to_json()))
            scores.append(json.loads(score_path.read_text())["miou"])
        spread = f" ± {stdev(scores):.3f}" if len(scores) > 1 else ""
        rows.append(f"| {name} | {mean(scores):.3f}{spread} | {len(scores)} |")
        print(rows[-1], flush=True)
        (args.output / "table.md").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
