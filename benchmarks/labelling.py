"""Upsampling and labelling alone: part of inference.py, which runs it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from measure import now_s, repeat, spread
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


def draw_scores(kind: str, grid: tuple[int, int], *, seed: int, device: torch.device) -> Tensor:
    """Scores spread as cosines are: each patch by itself ("independent"), or smoothed."""
    generator = torch.Generator(device).manual_seed(seed)
    scores = 0.03 * torch.randn(N_NAMES, *grid, generator=generator, device=device)
    return F.avg_pool2d(scores[None], 3, 1, 1)[0] if kind == "smooth" else scores
