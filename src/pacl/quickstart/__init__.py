"""The whole of pacl in a few minutes, offline: draw a world, align patches from captions, score.

The frozen CLIP is the embedded Storybook model. The embedders are trained here, on freshly drawn
pairs, and scored on scenes that no training has seen. Masks are read by the scores and by the
supervised probe, never by PACL.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from pacl.api import Model
from pacl.datasets.storybook import LABELS
from pacl.evaluation.alignment import measure_alignment
from pacl.evaluation.probe import TokenChoice, fit_linear_probe
from pacl.modeling.names import STORYBOOK, find_source
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers.hf import HfClip
from pacl.quickstart.pictures import draw_pictures
from pacl.quickstart.scores import score_compositions, score_model, score_probe, score_things
from pacl.quickstart.world import SEGMENT, World, draw_world
from pacl.results.figures import draw_curves
from pacl.training.config import PAPER, TrainConfig
from pacl.training.setup import has_bf16
from pacl.training.train import Progress, train

OnStage = Callable[[str, int, int], None]
"""Told the name of the stage, what is done of it and what there is to do."""

#: The paper's method; data, batch and learning rate are those of the quickstart, and the cost of
#: training is the same: fewer passes, each over all patches, as the paper's.
_PAPER_METHOD = {
    name: PAPER[name] for name in ("patch_temperature", "token_layer", "init", "noun_weight")
}


@dataclass(frozen=True)
class QuickstartConfig:
    """How much is drawn and trained."""

    output: Path = Path("runs/quickstart")
    """Where everything is written."""
    n_train: int = 2800
    """Captioned images to train on; three captions each."""
    n_test: int = 90
    """Images to score on; as many more teach the supervised probe."""
    epochs: int = 28
    """Passes over the training images."""
    patches_per_image: int = 64
    """Patches that a step draws of each image: at the same cost, more passes with a quarter of the
    patches teach more than fewer with all of them."""
    paper_epochs: int = 9
    """Passes of the row with the paper's method, which reads all patches of an image."""
    seed: int = 100
    """Seeds the drawn world; the embedded CLIP was trained on the one of seed 0."""


def run_quickstart(config: QuickstartConfig, *, on_stage: OnStage) -> dict[str, Any]:
    """Draw, train, evaluate, and write report.json; sheet.png and, with matplotlib, curve.png.

    Args:
        config: Sizes and place.
        on_stage: Called as the work goes on.

    Returns:
        The content of report.json.

    Raises:
        InputError: The embedded model is missing.
        EnvironmentProblem: The disk is full.
    """
    clock = _Clock()
    world = draw_world(
        config.output / "storybook",
        n_train=config.n_train,
        n_test=config.n_test,
        seed=config.seed,
        on_progress=lambda done, total: on_stage("draw Storybook", done, total),
    )
    clock.lap("draw")
    encoder = HfClip.from_pretrained(find_source(STORYBOOK))
    ours = _train(config, world, "pacl", {}, on_stage)
    clock.lap("train_pacl")
    passes = {"epochs": config.paper_epochs, "patches_per_image": None}
    paper = _train(config, world, "paper", _PAPER_METHOD | passes, on_stage)
    clock.lap("train_paper")

    models = _methods(encoder, paper=paper, ours=ours)
    scores = _score(models, world, encoder, on_stage)
    clock.lap("evaluate")

    sheet_path, curve_path = config.output / "sheet.png", config.output / "curve.png"
    files = [config.output / "report.json", sheet_path]
    draw_pictures(models, world, sheet_path)
    if find_spec("matplotlib") is not None:
        draw_curves(
            {"PACL": ours.parent / "metrics.jsonl", "PACL (paper)": paper.parent / "metrics.jsonl"},
            curve_path,
        )
        files.append(curve_path)
    clock.lap("pictures")
    report = scores | _describe_run(config) | {"seconds": clock.seconds}
    files[0].write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report | {"files": [str(path) for path in files]}


def _methods(encoder: HfClip, *, paper: Path, ours: Path) -> dict[str, Model]:
    """Return the methods that are compared, all of one frozen CLIP, by their names."""

    def baseline(kind: str) -> Model:
        return Model(Pacl(encoder=encoder, embedder=None, token_kind=kind))

    return {
        "CLIP": baseline("clip"),
        "MaskCLIP": baseline("maskclip"),
        "PACL (paper)": Model(Pacl.from_pretrained(paper, encoder=encoder)),
        "PACL": Model(Pacl.from_pretrained(ours, encoder=encoder)),
    }


def _score(
    models: dict[str, Model], world: World, encoder: HfClip, on_stage: OnStage
) -> dict[str, Any]:
    """Score all methods and the supervised probe; the measurements in report.json."""
    pacl = models["PACL"]
    tokens = TokenChoice(kind=pacl.pacl.token_kind, layer=pacl.pacl.token_layer)
    probe = fit_linear_probe(encoder, world.validation, tokens)
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(torch.device("cpu"))):
        rows, top1 = [], score_things(models, world)
        for name, model in models.items():
            rows.append(score_model(name, model, world, top1=top1[name]))
            on_stage("evaluate", len(rows), len(models) + 2)
        rows.append(score_probe(probe, tokens, encoder, world))
        on_stage("evaluate", len(rows), len(models) + 2)
        alignment = measure_alignment(pacl, world.test, n_resamples=0)
        compositions = score_compositions(pacl, world)
    return {
        "rows": rows,
        "coherence_auroc": alignment.frozen.coherence_auroc.value,
        "coherence_auroc_embedded": alignment.embedded.coherence_auroc.value,
        "classification_fusion_top1": top1["fusion"],
        "compositions": compositions,
    }


def _describe_run(config: QuickstartConfig) -> dict[str, Any]:
    return {
        "labels": list(LABELS),
        "patch_stride_px": SEGMENT.patch_stride_px,
        "n_train": config.n_train,
        "n_test": config.n_test,
        "seed": config.seed,
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        },
    }


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def lap(self, name: str) -> None:
        now_s = time.perf_counter()
        self.seconds[name] = round(now_s - self._last_s, 1)
        self._last_s = now_s


def _train(
    config: QuickstartConfig, world: World, name: str, changes: dict[str, Any], on_stage: OnStage
) -> Path:
    """Train an embedder, from images and captions only; the folder of its checkpoint."""
    settings = replace(
        TrainConfig(
            data=world.train,
            output=config.output / name,
            model=STORYBOOK,
            batch_size=32,
            lr=3e-3,
            epochs=config.epochs,
            patches_per_image=config.patches_per_image,
            log_every=2,
        ),
        **changes,
    )

    def on_step(progress: Progress) -> None:
        on_stage(f"train {name}, loss {progress.loss:.2f}", progress.step, progress.n_steps)

    def on_encoded(what: str, n_done: int, n: int) -> None:
        on_stage(f"images {what} for {name}", n_done, n)

    return train(settings, progress=on_step, on_encoded=on_encoded).checkpoint_dir
