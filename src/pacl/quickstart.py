"""The whole of pacl in a few minutes, offline: draw a world, align patches from captions, score.

The frozen CLIP is the embedded Storybook model. The embedders are trained here, on freshly drawn
pairs, and scored on scenes that no training has seen. Masks are read by the scores and by the
supervised probe, never by PACL.
"""

from __future__ import annotations

import csv
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from pacl.align import measure_alignment, measure_patch_accuracy
from pacl.api import Model
from pacl.data.folder import FolderDataset
from pacl.data.images import open_image
from pacl.data.storybook import LABELS, THINGS, draw_storybook
from pacl.encoders.hf import HfClip
from pacl.evaluate import evaluate_folder, evaluate_phrases, evaluate_segmenter
from pacl.evaluate_classification import evaluate_classification
from pacl.model import STORYBOOK, Pacl, find_source
from pacl.probe import TokenChoice, build_probe_scorer, fit_linear_probe
from pacl.results import Segmentation
from pacl.results.figures import draw_curves, draw_sheet
from pacl.segmenter import SegmentConfig, segment_images
from pacl.train import Progress, train
from pacl.train_config import PAPER, TrainConfig
from pacl.training_setup import has_bf16

OnStage = Callable[[str, int, int], None]
"""Told the name of the stage, what is done of it and what there is to do."""

#: The paper's method; data, batch, epochs and learning rate are those of the quickstart, so that
#: the rows differ in the method alone.
_PAPER_METHOD = {
    name: PAPER[name] for name in ("patch_temperature", "token_layer", "init", "lr", "wd")
}


#: The paper's stride trick, for every row: patches overlap by half.
_SEGMENT = SegmentConfig(patch_stride_px=4)


@dataclass(frozen=True)
class QuickstartConfig:
    """How much is drawn and trained."""

    output: Path = Path("runs/quickstart")
    """Where everything is written."""
    n_train: int = 2200
    """Captioned pictures to train on; three captions each."""
    n_test: int = 130
    """Pictures to score on; as many more teach the supervised probe."""
    epochs: int = 14
    """Passes over the training pictures."""
    seed: int = 100
    """Of the drawn world; the embedded CLIP was trained on the one of seed 0."""


@dataclass(frozen=True)
class _World:
    """The drawn splits."""

    train: Path
    validation: FolderDataset
    test: FolderDataset
    things: Path
    seen: Path
    heldout: Path


def run_quickstart(config: QuickstartConfig, *, on_stage: OnStage) -> dict[str, Any]:
    """Draw, train, evaluate, and write report.json, sheet.png and curve.png.

    Args:
        config: Sizes and place.
        on_stage: Called as the work goes on.

    Returns:
        the content of report.json.

    Raises:
        InputError: The embedded model is missing.
        EnvironmentProblem: The disk is full, or matplotlib is missing.
    """
    clock = _Clock()
    world = _draw(config, on_stage)
    clock.lap("draw")
    encoder = HfClip.from_pretrained(find_source(STORYBOOK))
    ours = _train(config, world, "pacl", {}, on_stage)
    clock.lap("train_pacl")
    paper = _train(config, world, "paper", _PAPER_METHOD, on_stage)
    clock.lap("train_paper")

    def baseline(kind: str) -> Model:
        return Model(Pacl(encoder=encoder, embedder=None, token_kind=kind))

    models = {
        "CLIP": baseline("clip"),
        "MaskCLIP": baseline("maskclip"),
        "PACL (paper)": Model(Pacl.from_pretrained(paper, encoder=encoder)),
        "PACL": Model(Pacl.from_pretrained(ours, encoder=encoder)),
    }
    tokens = TokenChoice(kind=models["PACL"].pacl.token_kind, layer=models["PACL"].pacl.token_layer)
    probe = fit_linear_probe(encoder, world.validation, tokens)
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(torch.device("cpu"))):
        rows = [
            _score_model(name, model, world, on_stage, number, len(models) + 1)
            for number, (name, model) in enumerate(models.items(), start=1)
        ]
        rows.append(_score_probe(probe, tokens, encoder, world))
        on_stage("evaluate", len(rows), len(rows))
        alignment = measure_alignment(models["PACL"], world.test)
        compositions = _score_compositions(models["PACL"], world)
    clock.lap("evaluate")

    sheet_path, curve_path = config.output / "sheet.png", config.output / "curve.png"
    _draw_sheet(models, world, sheet_path)
    draw_curves(
        {"PACL": ours.parent / "metrics.jsonl", "PACL (paper)": paper.parent / "metrics.jsonl"},
        curve_path,
    )
    clock.lap("pictures")
    report = {
        "rows": rows,
        "coherence_auroc": alignment.coherence_auroc,
        "coherence_auroc_embedded": alignment.coherence_auroc_embedded,
        "compositions": compositions,
        "labels": list(LABELS),
        "patch_stride_px": _SEGMENT.patch_stride_px,
        "n_train": config.n_train,
        "n_test": config.n_test,
        "seed": config.seed,
        "seconds": clock.seconds,
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        },
    }
    report_path = config.output / "report.json"
    report_path.write_text(json.dumps(report, indent=1), encoding="utf-8")
    report["files"] = [str(path) for path in (report_path, sheet_path, curve_path)]
    return report


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def lap(self, name: str) -> None:
        now_s = time.perf_counter()
        self.seconds[name] = round(now_s - self._last_s, 1)
        self._last_s = now_s


def _draw(config: QuickstartConfig, on_stage: OnStage) -> _World:
    counts = {
        "train": config.n_train,
        "validation": config.n_test,
        "test": config.n_test,
        "things": 10 * len(THINGS),
        "seen_compositions": 100,
        "heldout_compositions": 100,
    }
    folders = draw_storybook(
        config.output / "storybook",
        counts=counts,
        seed=config.seed,
        on_progress=lambda done, total: on_stage("draw Storybook", done, total),
    )
    return _World(
        train=folders["train"],
        validation=FolderDataset(folders["validation"]),
        test=FolderDataset(folders["test"]),
        things=folders["things"],
        seen=folders["seen_compositions"],
        heldout=folders["heldout_compositions"],
    )


def _train(
    config: QuickstartConfig, world: _World, name: str, changes: dict[str, Any], on_stage: OnStage
) -> Path:
    """Train an embedder, from images and captions only; the folder of its checkpoint."""
    settings = replace(
        TrainConfig(
            data=world.train,
            output=config.output / name,
            model=STORYBOOK,
            batch_size=64,
            lr=2e-3,
            epochs=config.epochs,
            log_every=2,
        ),
        **changes,
    )

    def on_step(progress: Progress) -> None:
        on_stage(f"train {name}, loss {progress.loss:.2f}", progress.step, progress.n_steps)

    def on_encoded(what: str, n_done: int, n: int) -> None:
        on_stage(f"encode {what} for {name}", n_done, n)

    return train(settings, progress=on_step, on_encoded=on_encoded).checkpoint_dir


def _score_model(
    name: str, model: Model, world: _World, on_stage: OnStage, number: int, total: int
) -> dict[str, Any]:
    segmentation = evaluate_folder(model, world.test, config=_SEGMENT)
    vocabulary = model.vocabulary(world.test.labels)
    patches = measure_patch_accuracy(
        model.scorer(vocabulary),
        world.test,
        encoder=model.pacl.encoder,
        class_of_name=vocabulary.class_of_name,
    )
    paths, targets, _ = read_labels(world.things)
    score = "pacl" if model.pacl.has_embedder else "clip"
    classification = evaluate_classification(model, paths, THINGS, targets, score=score)
    on_stage("evaluate", number, total)
    return {
        "method": name,
        "miou": segmentation.miou,
        "pixel_accuracy": segmentation.pixel_accuracy,
        "patch_accuracy_all": patches.over_all(),
        "patch_accuracy_present": patches.over_present(),
        "classification_top1": classification.top1,
        "iou": segmentation.to_json()["iou"],
    }


def _score_probe(
    probe: nn.Linear, tokens: TokenChoice, encoder: HfClip, world: _World
) -> dict[str, Any]:
    classes = torch.arange(len(world.test.labels))
    fine = build_probe_scorer(encoder, probe, tokens, patch_stride_px=_SEGMENT.patch_stride_px)

    def segment(images: Sequence[Image.Image]) -> list[Segmentation]:
        return segment_images(
            images,
            fine,
            encoder=encoder,
            labels=world.test.labels.names,
            class_of_name=classes,
            logit_scale=1.0,
            config=_SEGMENT,
        )

    segmentation = evaluate_segmenter(
        segment, world.test, batch_size=_SEGMENT.batch_size, protocol={"supervised": True}
    )
    native = build_probe_scorer(encoder, probe, tokens)
    patches = measure_patch_accuracy(native, world.test, encoder=encoder, class_of_name=classes)
    return {
        "method": "supervised linear probe",
        "miou": segmentation.miou,
        "pixel_accuracy": segmentation.pixel_accuracy,
        "patch_accuracy_all": patches.over_all(),
        "patch_accuracy_present": patches.over_present(),
        "classification_top1": None,
        "iou": segmentation.to_json()["iou"],
    }


def _score_compositions(model: Model, world: _World) -> dict[str, Any]:
    """IoU of things asked for by colour, pairs that were captioned in training against never."""
    scores: dict[str, Any] = {}
    for name, folder in (("seen", world.seen), ("heldout", world.heldout)):
        _, labels, phrases = read_labels(folder)
        scores[f"{name}_by_class"] = evaluate_phrases(
            model, FolderDataset(folder), labels, phrases, config=_SEGMENT
        )
        by_class = scores[f"{name}_by_class"].values()
        scores[f"{name}_iou"] = sum(by_class) / len(by_class)
    scores["relative_loss"] = 1 - scores["heldout_iou"] / scores["seen_iou"]
    return scores


def read_labels(folder: Path) -> tuple[list[Path], list[str], list[str]]:
    """Image files, class names and phrases of a split's labels.csv."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    paths = [folder / row["file_name"] for row in table]
    return paths, [row["label"] for row in table], [row["phrase"] for row in table]


def _draw_sheet(models: dict[str, Model], world: _World, path: Path, n_rows: int = 5) -> None:
    """Rows of: picture, truth, CLIP, PACL and PACL's heat maps of three phrases."""
    rows = []
    for item in _most_varied(world.test, n_rows):
        image, mask = open_image(item.image_path), world.test.read_mask(item)
        ours = models["PACL"].segment(image, world.test.labels, config=_SEGMENT)
        theirs = models["CLIP"].segment(image, world.test.labels, config=_SEGMENT)
        truth = replace(ours, label_map=mask + 1)
        phrases = sorted(
            (label for label in THINGS if truth.areas[label] > 0.01),
            key=lambda label: -truth.areas[label],
        )[:3]
        rows.append(
            [
                ("picture", image),
                ("truth", truth.overlay(legend=False, opacity=1)),
                ("CLIP", theirs.overlay(legend=False, opacity=1)),
                ("PACL", ours.overlay(legend=False, opacity=1)),
                *((f"“{phrase}”", ours.heatmap(phrase)) for phrase in phrases),
            ]
        )
    draw_sheet(rows, path)


def _most_varied(dataset: FolderDataset, n_items: int) -> Sequence[Any]:
    """The first items with at least three things of some size, and six classes."""
    chosen = []
    for item in dataset:
        ids, counts = torch.from_numpy(dataset.read_mask(item)).unique(return_counts=True)
        large = [LABELS[int(k)] for k, n in zip(ids, counts, strict=True) if n > 0.012 * 128 * 128]
        if len(large) >= 6 and sum(label in THINGS for label in large) >= 3:
            chosen.append(item)
        if len(chosen) == n_items:
            break
    return chosen
