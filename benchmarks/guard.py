"""Regression guard: the ratios to the naive forms on this CPU, against those that were committed.

    make bench                                  fails if a ratio fell by more than 15 %
    python benchmarks/guard.py --write          records this kind of machine's ratios anew

Ratios are of CPU seconds of one thread, both forms interleaved in one process, so that other
programs hardly move them. The file is that of the kind of machine: AVX2, AVX-512 or AMX.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from labelling import label_forms
from measure import machine, now_s
from random_clip import build_clip, draw_images, library_tokens
from torch import Tensor

from pacl.modeling.compatibility import Implementation, patch_compatibility
from pacl.modeling.loss import contrastive_loss
from pacl.modeling.towers.walk import cpu_flags

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 0.15
BUDGET_S = 120
"""Seconds in all, shared by the cases; a case runs at least MIN_ROUNDS rounds."""
MIN_ROUNDS = 3
CPU = torch.device("cpu")
Round = Callable[[int], dict[str, float]]
"""Seed → CPU seconds of "naive" and "pacl"."""


def machine_kind() -> str:
    """The widest products that this CPU has."""
    flags = cpu_flags()
    return "amx" if "amx_bf16" in flags else "avx512" if "avx512f" in flags else "avx2"


def timed(form: Callable[[], Any]) -> float:
    start = now_s(CPU)
    form()
    return now_s(CPU) - start


def loss_round(seed: int) -> dict[str, float]:
    """Loss and gradients of 96 images, 196 patches, 512 channels."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(96, 196, 512, generator=generator)
    texts = torch.randn(96, 512, generator=generator)
    seconds = {}
    forms: dict[str, Implementation] = {"naive": "naive", "pacl": "tiled"}
    for name, implementation in forms.items():
        leaf = patches.clone().requires_grad_()

        def step(leaf: Tensor = leaf, implementation: Implementation = implementation) -> None:
            scores = patch_compatibility(
                leaf, texts, patch_temperature=0.1, implementation=implementation
            )
            contrastive_loss(scores, logit_scale=14.0).backward()

        seconds[name] = timed(step)
    return seconds


def labelling_round(n_names: int) -> Round:
    """Labels and confidence of 360 x 480 px from a grid of 16 x 21."""

    @torch.inference_mode()
    def one_round(seed: int) -> dict[str, float]:
        return {name: timed(form) for name, form in label_forms(n_names, seed=seed).items()}

    return one_round


def encoder_round() -> Round:
    """Patch tokens of a ViT-B/16 in float32, against transformers' own forward pass."""
    encoder = build_clip()
    library = library_tokens(encoder, encoder.patch_size_px)

    @torch.inference_mode()
    def one_round(seed: int) -> dict[str, float]:
        images = draw_images(2, encoder.image_size_px, seed=seed, device=CPU)
        return {
            "naive": timed(lambda: library(images)),
            "pacl": timed(lambda: encoder.encode_patches(images)),
        }

    return one_round


CASES: dict[str, Callable[[], Round]] = {
    "loss and gradients": lambda: loss_round,
    "labelling, 20 names": lambda: labelling_round(20),
    "labelling, 150 names": lambda: labelling_round(150),
    "encoder, float32": encoder_round,
}


def measure(build: Callable[[], Round], *, budget_s: float) -> float:
    """Shortest naive seconds / pacl's: other programs' use of the caches shows least in it."""
    started, rounds = time.perf_counter(), list[dict[str, float]]()
    one_round = build()
    one_round(0)
    while len(rounds) < MIN_ROUNDS or time.perf_counter() - started < budget_s:
        rounds.append(one_round(len(rounds) + 1))
    return min(each["naive"] for each in rounds) / min(each["pacl"] for each in rounds)


def fallen(found: dict[str, float], committed: dict[str, float]) -> list[str]:
    """Describe the ratios that fell by more than the tolerance."""
    return [
        f"{name}: {found[name]:.2f} times as fast as naive, was {before:.2f}"
        for name, before in committed.items()
        if found[name] < (1 - TOLERANCE) * before
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="record the ratios")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / f"guard-{machine_kind()}.json"
    found: dict[str, float] = {}
    for name, build in CASES.items():
        found[name] = measure(build, budget_s=settings.budget_s / len(CASES))
        print(f"{name}: {found[name]:.2f} times as fast as naive", file=sys.stderr)
        if settings.write:
            load = round(os.getloadavg()[0], 1)
            report = {"machine": machine(CPU) | {"load": load}, "speedup": found}
            path.write_text(json.dumps(report, indent=1) + "\n")
    if settings.write:
        return 0
    if not path.is_file():
        print(f"no ratios of this kind of machine: record them with --write ({path.name})")
        return 1
    slower = fallen(found, json.loads(path.read_text())["speedup"])
    print("\n".join(slower) or f"no ratio fell by more than {TOLERANCE:.0%}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
