"""Upsampling and labelling alone: part of inference.py, which runs it.

Run by itself it measures wall-clock ratios to the naive form on a 480 x 360 px image, and with
--busy beside programs that keep cores busy:

    python benchmarks/labelling.py --threads 2 --busy 1
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import machine, now_s, repeat, spread
from torch import Tensor
from torch.nn import functional as F

from pacl.inference.labelling import label_pixels

N_NAMES = 150


def measure_labelling(kind: str, settings: argparse.Namespace) -> dict[str, Any]:
    """150 names on a grid of 32 x 43 to 512 x 683 px, with and without confidence."""
    device, grid, size_px, scale = torch.device(settings.device), (32, 43), (512, 683), 100.0
    classes = torch.arange(N_NAMES, device=device)

    def interpolate(scores: Tensor) -> Tensor:
        return F.interpolate(scores[None], size_px, mode="bilinear")[0]

    def ours(scores: Tensor, *, wants_confidence: bool) -> tuple[Tensor, Tensor]:
        return label_pixels(
            scores,
            class_of_name=classes,
            size_px=size_px,
            logit_scale=scale,
            wants_confidence=wants_confidence,
        )

    variants: dict[str, Callable[[Tensor], Tensor]] = {
        "interpolate + argmax": lambda scores: interpolate(scores).argmax(dim=0) + 1,
        "pacl": lambda scores: ours(scores, wants_confidence=False)[0],
        "interpolate + softmax + max": lambda scores: (
            (scale * interpolate(scores)).softmax(dim=0).max(dim=0).indices + 1
        ),
        "pacl with confidence": lambda scores: ours(scores, wants_confidence=True)[0],
    }
    rows = {name: {"variant": name, "differing_pixels": 0} for name in variants}
    ties = 0

    def one_round(seed: int) -> dict[str, float]:
        nonlocal ties
        scores = draw_scores(kind, grid, seed=seed, device=device)
        best = interpolate(scores.double()).topk(2, dim=0).values
        is_tied = best[0] - best[1] < 1e-6
        ties += int(is_tied.sum())
        expected = interpolate(scores.double()).argmax(dim=0) + 1
        del best
        seconds = {}
        for name, label in variants.items():
            torch.full((N_NAMES, *size_px), float("nan"), device=device)
            start = now_s(device)
            found = label(scores)
            seconds[name] = now_s(device) - start
            rows[name]["differing_pixels"] += int(((found != expected) & ~is_tied).sum())
        return seconds

    with torch.inference_mode():
        times = repeat(one_round, settings, title=f"labelling, {kind} scores")
    for name, row in rows.items():
        row |= {"image_s": spread(times[name])}
    return {"scores": kind, "tied_pixels": ties, "rows": list(rows.values())}


def draw_scores(
    kind: str, grid: tuple[int, int], *, seed: int, device: torch.device, n_names: int = N_NAMES
) -> Tensor:
    """Scores spread as cosines are: each patch by itself ("independent"), or smoothed."""
    generator = torch.Generator(device).manual_seed(seed)
    scores = 0.03 * torch.randn(n_names, *grid, generator=generator, device=device)
    return F.avg_pool2d(scores[None], 3, 1, 1)[0] if kind == "smooth" else scores


def label_forms(n_names: int, *, seed: int) -> dict[str, Callable[[], object]]:
    """Labels and confidence of 360 x 480 px from a grid of 16 x 21, the naive way and pacl's."""
    size_px, scale, classes = (360, 480), 100.0, torch.arange(n_names)
    scores = draw_scores("smooth", (16, 21), seed=seed, device=torch.device("cpu"), n_names=n_names)

    def naive() -> None:
        whole = F.interpolate(scores[None], size_px, mode="bilinear")[0]
        (scale * whole).softmax(dim=0).max(dim=0)

    def ours() -> None:
        label_pixels(scores, class_of_name=classes, size_px=size_px, logit_scale=scale)

    return {"naive": naive, "pacl": ours}


def measure_ratio(n_names: int, *, rounds: int) -> dict[str, Any]:
    """Wall-clock seconds of both forms, interleaved, on a grid of 16 x 21 to 360 x 480 px."""
    seconds: dict[str, list[float]] = {"naive": [], "pacl": []}
    for turn in range(rounds + 1):
        for name, form in label_forms(n_names, seed=turn).items():
            start = time.perf_counter()
            form()
            seconds[name].append(time.perf_counter() - start)
    times = {name: spread(values[1:]) for name, values in seconds.items()}
    ratio = times["pacl"]["median"] / times["naive"]["median"]
    return {"names": n_names, "to_naive": ratio, **times}


def _keep_busy() -> None:
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--busy", type=int, default=0, help="programs that each keep a core busy")
    parser.add_argument("--names", type=int, nargs="+", default=[20, 150, 1000])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    others = [multiprocessing.Process(target=_keep_busy) for _ in range(settings.busy)]
    report = {"machine": machine(torch.device("cpu")), "busy": settings.busy, "rows": []}
    for other in others:
        other.start()
    try:
        with torch.inference_mode():
            for n_names in settings.names:
                row = measure_ratio(n_names, rounds=settings.rounds)
                report["rows"].append(row)
                print(f"{n_names} names: {row['to_naive']:.2f} of the naive time", file=sys.stderr)
                if settings.out:
                    settings.out.write_text(json.dumps(report, indent=1) + "\n")
    finally:
        for other in others:
            other.kill()


if __name__ == "__main__":
    main()
