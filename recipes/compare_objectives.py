"""Compare objectives at equal settings on Storybook: poolings, losses, null token; over seeds.

    python recipes/compare_objectives.py runs/objectives --seeds 0 1 2
    python recipes/compare_objectives.py runs/objectives --variants pacl mean --epochs 3
    python recipes/compare_objectives.py runs/crossed --vision storybook --text WORDLLAMA

Data and settings are those of the quickstart, and a variant changes the objective alone;
recipes/photographs.py compares the same ones on photographs. Scores are mIoU on the test scenes at
the quickstart's stride, and top-1 on images of one thing each by the pooling that was trained.
With --vision and --text, a pair of foreign towers in place of the CLIP, there is mIoU alone, at
the tower's stride.
Finished runs are kept and not repeated, others resume. Two files grow as variants finish:
objectives.json, with a row per run, and objectives.md, with mean and spread.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from torch import Tensor

from pacl.api import Model, load
from pacl.datasets.classification.dataset import ClassificationData, plain_labels
from pacl.datasets.classification.storybook import read_things
from pacl.datasets.storybook import THINGS
from pacl.evaluation.classification import evaluate_set
from pacl.evaluation.segmentation import evaluate_folder
from pacl.modeling.names import STORYBOOK, find_source
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers.hf import HfClip
from pacl.quickstart.world import SEGMENT, World, draw_world
from pacl.runtime.memory import keep_freed_memory
from pacl.text.templates import PAPER7
from pacl.training.config import TrainConfig
from pacl.training.train import train

OBJECTIVES: dict[str, dict[str, Any]] = {
    "pacl": {},
    "mean": {"pooling": "mean"},
    "max": {"pooling": "max"},
    "sparse": {"pooling": "sparse"},
    "own-caption (another objective)": {"pooling": "own-caption"},
    "pacl, sigmoid": {"loss": "sigmoid"},
}
"""Every pooling and loss: what is compared in both worlds."""

VARIANTS = OBJECTIVES | {
    "pacl, learned null token": {"null_token": "learn"},
    "pacl, captions of shared nouns left out": {"false_negatives": "nouns"},
    "mean, sigmoid": {"pooling": "mean", "loss": "sigmoid"},
    "pacl, temperature 1, noun weight 1": {"patch_temperature": 1.0, "noun_weight": 1.0},
    "mean, noun weight 1": {"pooling": "mean", "noun_weight": 1.0},
    "pacl, temperature 1": {"patch_temperature": 1.0},
    "pacl, no nouns": {"noun_weight": 0.0},
    "mean, no nouns": {"pooling": "mean", "noun_weight": 0.0},
    "pacl, temperature 1, no nouns": {"patch_temperature": 1.0, "noun_weight": 0.0},
    "pacl, zero null token": {"null_token": "zero"},
    "pacl, equal captions left out": {"false_negatives": "equal"},
    "pacl, all patches": {"patches_per_image": None, "epochs": 9},
    "mean, all patches": {"pooling": "mean", "patches_per_image": None, "epochs": 9},
    "pacl, all patches, as many passes": {"patches_per_image": None},
}

Score = Callable[[Path], dict[str, float]]
_PARTS = ("training", "scoring")


def compare(
    output: Path,
    base: TrainConfig,
    variants: dict[str, dict[str, Any]],
    *,
    seeds: Sequence[int],
    score: Score,
    part: slice = slice(None),
) -> list[dict[str, Any]]:
    """Train and score every variant with every seed, and write the table after each.

    Args:
        output: Folder of runs, JSON and table. Runs share one token cache, since an objective
            changes nothing about frozen tokens.
        base: Data, towers and settings that all variants have in common.
        variants: Name → the settings that it changes.
        seeds: Seeds of training.
        score: Checkpoint directory → scores by name, higher is better.
        part: Which of these runs, seed by seed; another process may do the others meanwhile.

    Returns:
        A row for each run: variant, seed, settings, scores, and CPU seconds of training and of
        scoring. The first run's include encoding the tokens, unless they are there already.
    """
    rows = []
    for seed, (name, changes) in list(product(seeds, variants.items()))[part]:
        directory = output / f"{name} {seed}".replace(",", "").replace(" ", "_")
        config = replace(base, output=directory, seed=seed, cache="disk", **changes)
        row = {"variant": name, "seed": seed, "run": directory.name, "settings": changes}
        rows.append(row | _run(config, output / "tokens", score))
        print(json.dumps(rows[-1]), flush=True)
        (output / "objectives.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        (output / "objectives.md").write_text(tabulate(rows), encoding="utf-8")
    return rows


def _run(config: TrainConfig, tokens: Path, score: Score) -> dict[str, Any]:
    """Scores and seconds of a run, read where they are from the same settings."""
    path = config.output / "scores.json"
    settings = config.resolve()
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if not settings.differing_fields(kept.pop("config")):
            return kept
    tokens.mkdir(parents=True, exist_ok=True)
    config.output.mkdir(exist_ok=True)
    if not (config.output / "tokens").exists():
        (config.output / "tokens").symlink_to(tokens.resolve())
    started_s = time.process_time()
    done = train(config)
    if done.is_stopped:
        raise SystemExit(f"stopped at step {done.steps} of {done.n_steps}; run again to resume")
    trained_s = time.process_time()
    result = {
        "scores": score(done.checkpoint_dir),
        "cpu_s_training": round(trained_s - started_s, 1),
        "cpu_s_scoring": round(time.process_time() - trained_s, 1),
    }
    path.write_text(json.dumps(result | {"config": settings.to_json()}), encoding="utf-8")
    return result


def tabulate(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: mean and standard deviation over the seeds of each variant."""
    names = list(rows[0]["scores"])
    lines = [
        f"| objective | {' | '.join(names)} | CPU s, training | scoring | seeds |",
        "|---" * (len(names) + 4) + "|",
    ]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        runs = [row for row in rows if row["variant"] == variant]
        cells = [_spread([run["scores"][name] for run in runs]) for name in names]
        cells += [f"{mean(run[f'cpu_s_{part}'] for run in runs):.0f}" for part in _PARTS]
        lines.append(f"| {variant} | {' | '.join(cells)} | {len(runs)} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def remember(tower: HfClip) -> None:
    """Have a frozen tower encode each batch once, however many models are scored on it."""
    encode = tower.encode_patches
    known: dict[Any, Any] = {}

    def encode_patches(images: Tensor, **options: Any) -> Any:
        content = hashlib.sha256(images.numpy().tobytes()).digest()
        key = content, images.shape, tuple(options.items())
        if key not in known:
            known[key] = encode(images, **options)
        return known[key]

    tower.encode_patches = encode_patches  # type: ignore[method-assign]


def score_on_world(checkpoint: Path, world: World, encoder: HfClip) -> dict[str, float]:
    """mIoU of the test scenes; top-1 by the trained pooling, and by CLIP's own embedding."""
    model = Model(Pacl.from_pretrained(checkpoint, encoder=encoder))
    things = ClassificationData(
        labels=plain_labels(THINGS), test=read_things(world.things), train=None
    )
    images = evaluate_set(model, things, templates=PAPER7, patch_stride_px=SEGMENT.patch_stride_px)
    return {
        "mIoU": evaluate_folder(model, world.test, config=SEGMENT).miou,
        "top-1": images.rows["pacl"].top1,
        "top-1 of CLIP": images.rows["clip"].top1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--n-train", type=int, default=2800)
    parser.add_argument("--n-test", type=int, default=90)
    parser.add_argument("--epochs", type=int, default=28)
    parser.add_argument("--patches-per-image", type=int, default=64)
    parser.add_argument("--vision", help="a vision tower, as for pacl train")
    parser.add_argument("--text", help="its text tower")
    args = parser.parse_args()
    keep_freed_memory()
    world = draw_world(
        args.output / "storybook",
        n_train=args.n_train,
        n_test=args.n_test,
        seed=100,
        on_progress=lambda done, total: None,
    )
    base = TrainConfig(
        data=world.train,
        output=args.output,
        vision=args.vision,
        text=args.text,
        batch_size=32,
        lr=3e-3,
        epochs=args.epochs,
        patches_per_image=args.patches_per_image,
    )
    encoder = HfClip.from_pretrained(find_source(STORYBOOK))
    remember(encoder)

    def score(checkpoint: Path) -> dict[str, float]:
        if args.vision is not None:
            return {"mIoU": evaluate_folder(load(str(checkpoint)), world.test).miou}
        return score_on_world(checkpoint, world, encoder)

    variants = {name: VARIANTS[name] for name in args.variants}
    compare(args.output, base, variants, seeds=args.seeds, score=score)


if __name__ == "__main__":
    main()
