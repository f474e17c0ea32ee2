"""The rows of the quickstart's table."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pacl.api import Model
from pacl.datasets.classification.dataset import ClassificationData, plain_labels
from pacl.datasets.classification.storybook import read_things
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.datasets.storybook import THINGS
from pacl.evaluation.alignment import measure_patch_accuracy
from pacl.evaluation.classification import evaluate_set
from pacl.evaluation.metrics.segmentation import PatchAccuracy
from pacl.evaluation.phrases import evaluate_phrases
from pacl.evaluation.predictor import Predictor
from pacl.evaluation.probe import TokenChoice, build_probe_scorer
from pacl.evaluation.scoreboard import SegmentationReport
from pacl.evaluation.segmentation import evaluate_folder, evaluate_task
from pacl.evaluation.task import build_task
from pacl.modeling.towers.hf import HfClip
from pacl.quickstart.world import SEGMENT, World, read_phrases
from pacl.text.templates import PAPER7

_COLUMNS = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel acc.",
    "patch_accuracy_all": "patch acc. (all)",
    "patch_accuracy_present": "patch acc. (present)",
    "classification_top1": "top-1",
}


def score_things(models: dict[str, Model], world: World) -> dict[str, float]:
    """Measure top-1 of each method on images of one thing each, and of PACL fused with CLIP.

    PACL compares the same patches as in segmenting. Methods without an embedder classify as CLIP
    does, by its pooled embedding.
    """
    data = ClassificationData(
        labels=plain_labels(THINGS), test=read_things(world.things), train=None
    )
    top1 = {}
    for name, model in models.items():
        if model.pacl.has_embedder:
            report = evaluate_set(
                model, data, templates=PAPER7, patch_stride_px=SEGMENT.patch_stride_px
            )
            top1[name] = report.rows["pacl"].top1
    top1["fusion"], of_clip = report.rows["fusion"].top1, report.rows["clip"].top1
    return dict.fromkeys(models, of_clip) | top1


def score_model(name: str, model: Model, world: World, *, top1: float) -> dict[str, Any]:
    """Measure a model, and return its row of the table."""
    segmentation = evaluate_folder(model, world.test, config=SEGMENT)
    vocabulary = model.vocabulary(world.test.labels)
    patches = measure_patch_accuracy(
        model.scorer(vocabulary),
        world.test,
        encoder=model.pacl.vision,
        class_of_name=vocabulary.class_of_name,
    )
    return _row(name, segmentation, patches, top1=top1)


def score_probe(
    probe: nn.Linear, tokens: TokenChoice, encoder: HfClip, world: World
) -> dict[str, Any]:
    """Measure the supervised probe, which cannot classify by words, and return its row."""
    classes = torch.arange(len(world.test.labels))
    fine = build_probe_scorer(encoder, probe, tokens, patch_stride_px=SEGMENT.patch_stride_px)

    predictor = Predictor(
        build_task("storybook", world.test, preset=None, config=SEGMENT),
        encoder=encoder,
        score_patches=fine,
        class_of_name=classes,
        logit_scale=1.0,
    )
    [segmentation] = evaluate_task(predictor).values()
    native = build_probe_scorer(encoder, probe, tokens)
    patches = measure_patch_accuracy(native, world.test, encoder=encoder, class_of_name=classes)
    return _row("supervised linear probe", segmentation, patches, top1=None)


def _row(
    name: str, segmentation: SegmentationReport, patches: PatchAccuracy, *, top1: float | None
) -> dict[str, Any]:
    return {
        "method": name,
        "miou": segmentation.miou,
        "pixel_accuracy": segmentation.pixel_accuracy,
        "patch_accuracy_all": patches.over_all(),
        "patch_accuracy_present": patches.over_present(),
        "classification_top1": top1,
        "iou": segmentation.to_json()["iou"],
    }


def score_compositions(model: Model, world: World) -> dict[str, Any]:
    """Measure IoU of things asked for by colour, for pairs that training captioned or never did."""
    scores: dict[str, Any] = {}
    for name, folder in (("seen", world.seen), ("heldout", world.heldout)):
        labels, phrases = read_phrases(folder)
        scores[f"{name}_by_class"] = evaluate_phrases(
            model, FolderDataset(folder), labels, phrases, config=SEGMENT
        )
        by_class = scores[f"{name}_by_class"].values()
        scores[f"{name}_iou"] = sum(by_class) / len(by_class)
    scores["relative_loss"] = 1 - scores["heldout_iou"] / scores["seen_iou"]
    return scores


def report_table(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return a header and a row per method; a dash where a method has no such score."""
    rows = [
        [row["method"], *("-" if row[key] is None else f"{row[key]:.3f}" for key in _COLUMNS)]
        for row in report["rows"]
    ]
    return ["method", *_COLUMNS.values()], rows


def report_sentences(report: dict[str, Any]) -> list[str]:
    """Return what the table does not hold: coherence, and things asked for by colour."""
    pairs = report["compositions"]
    return [
        f"semantic coherence of the frozen patches (AUROC): {report['coherence_auroc']:.3f}",
        f"IoU of things asked for by colour: {pairs['seen_iou']:.3f} for pairs captioned in "
        f"training, {pairs['heldout_iou']:.3f} for pairs that never were",
    ]
