"""Images per second of a training step, and the share of the loss in it.

    python benchmarks/training_step.py                              one CPU thread
    python benchmarks/training_step.py --variants "cached tokens" "cached tokens, 64 patches"
    python benchmarks/training_step.py --device cuda --batch 256 1024 4096

Two ways to get patch tokens: from a cache, all of them or 64 random ones of each image
(`pacl train --patches-per-image 64`), or from the frozen encoder (ViT-B/16 of random weights,
224 px) in the step, in float32 and with products in bfloat16. Then the embedder, the compatibility
of every image with every text, the contrastive loss, both backward passes and AdamW's update.
`encoder only` is the encoder's forward pass by itself. Each round draws new inputs and runs every
variant; numbers are medians over the rounds, on a CPU in CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from measure import PeakMemory, ceilings, machine, now_s, spread, write_report
from random_clip import build_clip, draw_images
from torch import Tensor

from pacl.modeling.compatibility import patch_compatibility
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.engines import DenseEngine, build_engine
from pacl.modeling.loss import contrastive_loss
from pacl.modeling.towers.hf import HfClip
from pacl.training.batches import sample_patches

TEMPERATURE = 0.1
LOGIT_SCALE = 14.0
PATCHES = 196
KEPT = 64
CACHED = "cached tokens"
SAMPLED = f"cached tokens, {KEPT} patches"
VARIANTS = {
    CACHED: None,
    SAMPLED: None,
    "encoder in the step, float32": "torch",
    "encoder in the step, bfloat16": "torch-bf16",
}
ALONE = "encoder only, bfloat16"
MIN_ROUNDS = 3


class Trainer:
    """The trained part and its optimiser."""

    def __init__(self, encoder: HfClip, implementation: Any) -> None:
        self.device = encoder.device
        self.embedder = VisionEmbedder(encoder.width, encoder.joint_width).to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.embedder.parameters(), lr=1e-3, fused=self.device.type == "cuda"
        )
        self.implementation = implementation

    def step(self, tokens: Tensor, texts: Tensor) -> dict[str, float]:
        """One step; seconds of the embedder with the optimiser, and of the loss."""
        started = now_s(self.device)
        patches = self.embedder(tokens.clone())  # out of inference mode
        leaf = patches.detach().requires_grad_()
        embedded = now_s(self.device)
        compatibility = patch_compatibility(
            leaf, texts, patch_temperature=TEMPERATURE, implementation=self.implementation
        )
        contrastive_loss(compatibility, LOGIT_SCALE).backward()
        scored = now_s(self.device)
        patches.backward(leaf.grad)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        ended = now_s(self.device)
        return {"loss_s": scored - embedded, "embedder_s": ended - scored + embedded - started}


def encode(engine: DenseEngine, images: Tensor, at_once: int) -> tuple[Tensor, float]:
    """Patch tokens, encoded a few images at a time, and the seconds it took."""
    started = now_s(images.device)
    options = {"kind": "clip", "layer": -1, "stride_px": None}
    tokens = [engine.encode_patches(some, **options)[0] for some in images.split(at_once)]
    return torch.cat(tokens), now_s(images.device) - started


def measure_batch(encoder: HfClip, batch: int, settings: argparse.Namespace) -> dict[str, Any]:
    """One row per variant; running out of memory is a result, too."""
    trainer = Trainer(encoder, settings.implementation)
    extra_bytes = step_bytes(trainer, encoder, batch)
    engines = {name: build_engine(name, encoder) for name in ("torch", "torch-bf16")}
    rows: dict[str, dict[str, Any]] = {name: {"variant": name} for name in settings.variants}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    began = time.perf_counter()
    for turn in range(settings.warmup + settings.rounds):
        images = draw_images(batch, encoder.image_size_px, seed=turn, device=trainer.device)
        texts = torch.randn(batch, encoder.joint_width, device=trainer.device)
        cached = torch.randn(batch, PATCHES, encoder.width, device=trainer.device)
        for name in [name for name in rows if "failed" not in rows[name]]:
            try:
                seconds = run(name, trainer, engines, images, texts, cached, settings.at_once, turn)
            except torch.OutOfMemoryError as problem:
                rows[name]["failed"] = type(problem).__name__
                continue
            if turn >= settings.warmup:
                times[name].append(seconds)
        print(f"batch {batch}: round {turn + 1}", file=sys.stderr)
        if turn + 1 == settings.warmup:
            began = time.perf_counter()
        if (
            turn >= settings.warmup + MIN_ROUNDS - 1
            and time.perf_counter() - began > settings.case_s
        ):
            break
    for name, row in rows.items():
        if "failed" not in row:
            steps = [sum(part.values()) for part in times[name]]
            row["step_s"] = spread(steps)
            row["images_per_s"] = batch / row["step_s"]["median"]
            row["loss_share"] = spread(
                [part["loss_s"] / step for part, step in zip(times[name], steps, strict=True)]
            )["median"]
    return {"batch": batch, "cached_step_extra_bytes": extra_bytes, "rows": list(rows.values())}


def step_bytes(trainer: Trainer, encoder: HfClip, batch: int) -> int:
    """Peak memory that a step with cached tokens adds to them; before anything else has run."""

    def draw(n: int) -> tuple[Tensor, Tensor]:
        tokens = torch.randn(n, PATCHES, encoder.width, device=trainer.device)
        return tokens, torch.randn(n, encoder.joint_width, device=trainer.device)

    trainer.step(*draw(2))
    inputs = draw(batch)
    with PeakMemory(trainer.device) as peak:
        trainer.step(*inputs)
    return peak.bytes


def run(
    name: str,
    trainer: Trainer,
    engines: dict[str, DenseEngine],
    images: Tensor,
    texts: Tensor,
    cached: Tensor,
    at_once: int,
    turn: int,
) -> dict[str, float]:
    """Seconds of each part of one step."""
    if name == ALONE:
        return {"encoder_s": encode(engines["torch-bf16"], images, at_once)[1], "loss_s": 0.0}
    if name == SAMPLED:
        started = now_s(cached.device)
        kept = sample_patches(len(cached), PATCHES, KEPT, seed=0, step=turn).to(cached.device)
        some = cached[torch.arange(len(cached), device=cached.device)[:, None], kept]
        return {"sample_s": now_s(cached.device) - started} | trainer.step(some, texts)
    engine = VARIANTS[name]
    if engine is None:
        return trainer.step(cached, texts)
    tokens, seconds = encode(engines[engine], images, at_once)
    return trainer.step(tokens, texts) | {"encoder_s": seconds}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[32])
    names = [*VARIANTS, ALONE]
    parser.add_argument("--variants", nargs="+", default=names, choices=names)
    parser.add_argument("--at-once", type=int, default=32, help="images encoded together")
    parser.add_argument("--implementation", default="auto", help="of the compatibility")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--case-s", type=float, default=300.0)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/training_step.json"))
    return parser.parse_args()


def main() -> None:
    settings = parse()
    torch.set_num_threads(1)
    from tables import training_table

    device = torch.device(settings.device)
    encoder = build_clip().to(device)
    report: dict[str, Any] = {
        "machine": machine(device),
        "ceilings": {d: ceilings(device, getattr(torch, d)) for d in ("float32", "bfloat16")},
        "cases": [],
    }
    for batch in settings.batch:
        report["cases"].append(measure_batch(encoder, batch, settings))
        write_report(settings.output, report, training_table(report))
    print(training_table(report))


if __name__ == "__main__":
    main()
