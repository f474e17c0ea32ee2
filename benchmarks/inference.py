"""Time, memory and agreement of dense inference: from images to one label per pixel.

    python benchmarks/inference.py                       one CPU thread, all parts, all engines here
    python benchmarks/inference.py --device cuda --batch 64 16 4
    python benchmarks/inference.py --rounds 3 --case-s 30 --parts encoder --strides 16

Three parts. `encoder`: a CLIP ViT-B/16 of random weights, 224 px, 150 names, at each patch stride;
the baseline is transformers' own float32 forward with F.interpolate and argmax. `labelling`:
upsampling and labelling alone, against the same done by torch with all scores held. `memory`:
what segmenting one photograph of 4,000 x 3,000 px adds to the model.

Writes --output (JSON) and the same as a Markdown table beside it. Each round draws new inputs and
runs every variant on them; a case ends after --rounds rounds or --case-s seconds. On a CPU the
numbers are CPU seconds of one thread: on a shared machine their ratios hold, their absolute values
do not.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measure import PeakMemory, ceilings, machine, now_s, spread, write_report
from random_clip import build_clip, draw_images, draw_names, library_tokens
from torch import Tensor
from torch.nn import functional as F

from pacl.encoders.hf import HfClip
from pacl.engines import ENGINES, packages_of
from pacl.errors import PaclError
from pacl.labelling import label_pixels
from pacl.model import Pacl
from pacl.segment_config import SegmentConfig
from pacl.segmenter import build_scorer, segment_images

SIZE_PX = 224
N_NAMES = 150
MIN_ROUNDS = 3
LIBRARY = "transformers float32, interpolate + argmax"
PHOTO_PX = (4000, 3000)

Labeller = Callable[[Tensor], Tensor]


# ---- the encoder and the labels ---------------------------------------------------------------


def library_labeller(encoder: HfClip, names: Tensor, stride_px: int) -> Labeller:
    """transformers' CLIP with its convolution's stride set, and the scores of all pixels held."""
    forward = library_tokens(encoder, stride_px)

    @torch.inference_mode()
    def label(images: Tensor) -> Tensor:
        tokens, grid = forward(images)
        embeds = F.normalize(encoder.clip.visual_projection(tokens), dim=-1)
        scores = (embeds @ names.T).mT.unflatten(2, grid)
        return F.interpolate(scores, images.shape[2:], mode="bilinear").argmax(dim=1) + 1

    return label


def pacl_labeller(encoder: HfClip, names: Tensor, stride_px: int, engine: str) -> Labeller:
    """pacl with one of its engines."""
    model = Pacl(encoder=encoder, embedder=None)
    model.use_engine(engine)
    scorer = build_scorer(model, names, patch_stride_px=stride_px)
    classes = torch.arange(len(names), device=names.device)

    @torch.inference_mode()
    def label(images: Tensor) -> Tensor:
        maps = [
            label_pixels(
                scores,
                class_of_name=classes,
                size_px=(SIZE_PX, SIZE_PX),
                logit_scale=100.0,
                wants_confidence=False,
            )[0]
            for scores in scorer(images)
        ]
        return torch.stack(maps)

    return label


def measure_encoder(
    encoder: HfClip, stride_px: int, batch: int, settings: argparse.Namespace
) -> dict[str, Any]:
    """One row per variant at one stride."""
    device = torch.device(settings.device)
    names = draw_names(encoder, N_NAMES)
    labellers = {LIBRARY: library_labeller(encoder, names, stride_px)}
    rows: dict[str, dict[str, Any]] = {LIBRARY: {"variant": LIBRARY}}
    for engine in settings.engines:
        try:
            labellers[engine] = pacl_labeller(encoder, names, stride_px, engine)
            rows[engine] = {"variant": engine}
        except PaclError as problem:
            rows[engine] = {"variant": engine, "failed": problem.what}
    equal: dict[str, list[float]] = {name: [] for name in labellers}
    n_labels: list[int] = []

    def one_round(seed: int) -> dict[str, float]:
        images = draw_images(batch, SIZE_PX, seed=seed, device=device)
        expected, seconds = None, {}
        for name, label in labellers.items():
            torch.full((batch, N_NAMES, SIZE_PX, SIZE_PX), float("nan"), device=device)
            start = now_s(device)
            found = label(images)
            seconds[name] = (now_s(device) - start) / batch
            expected = found if expected is None else expected
            equal[name].append((found == expected).float().mean().item())
        assert expected is not None
        n_labels.append(len(expected.unique()))
        return seconds

    times = repeat(one_round, settings, title=f"stride {stride_px}")
    for name, row in rows.items():
        if name in times:
            row |= {"image_s": spread(times[name]), "equal_pixels": min(equal[name])}
    if stride_px == encoder.patch_size_px:
        add_token_errors(encoder, rows, settings)
    return {
        "stride_px": stride_px,
        "batch": batch,
        "labels_per_round": min(n_labels),
        "gflop": encoder_flops(encoder, stride_px) / 1e9,
        "rows": list(rows.values()),
    }


def add_token_errors(
    encoder: HfClip, rows: dict[str, dict[str, Any]], settings: argparse.Namespace
) -> None:
    """Each engine's error of the patch tokens of one image, relative to float64's."""
    images = draw_images(1, SIZE_PX, seed=0, device=torch.device(settings.device))
    exact = copy.deepcopy(encoder).double()
    with torch.inference_mode():
        expected = exact.encode_patches(images)[0]
    for engine in settings.engines:
        if "failed" in rows[engine]:
            continue
        model = Pacl(encoder=encoder, embedder=None)
        model.use_engine(engine)
        tokens, _ = model.encode_patches(images)
        error = (tokens - expected).norm() / expected.norm()
        rows[engine]["token_error"] = error.item()


def encoder_flops(encoder: HfClip, stride_px: int) -> float:
    """Of one image: the blocks' products, the patch embedding and the projection."""
    side = (SIZE_PX - encoder.patch_size_px) // stride_px + 1
    n, width = side * side + 1, encoder.width
    block = 2 * n * 12 * width**2 + 2 * 2 * n * n * width
    ends = 2 * n * width * (3 * encoder.patch_size_px**2 + encoder.joint_width)
    return float(encoder.n_layers * block + ends)


# ---- labelling alone ------------------------------------------------------------------------


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


# ---- memory of a large photograph -------------------------------------------------------------


def photo_bytes(engine: str) -> int:
    """Peak memory that one large photograph adds to a loaded model; for a process of its own."""
    from PIL import Image

    encoder = build_clip()
    model = Pacl(encoder=encoder, embedder=None)
    model.use_engine(engine)
    names = draw_names(encoder, N_NAMES)

    def segment(width: int, height: int) -> None:
        segment_images(
            [Image.effect_noise((width, height), 80).convert("RGB")],
            build_scorer(model, names),
            encoder=encoder,
            labels=tuple(map(str, range(N_NAMES))),
            class_of_name=torch.arange(N_NAMES),
            logit_scale=100.0,
            config=SegmentConfig(),
        )

    segment(300, 224)
    with PeakMemory(torch.device("cpu")) as peak:
        segment(*PHOTO_PX)
    return peak.bytes


def measure_memory(settings: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for engine in settings.engines:
        command = [sys.executable, __file__, "--memory-of", engine]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        row: dict[str, Any] = {"variant": engine}
        row |= (
            {"extra_bytes": json.loads(done.stdout)}
            if done.returncode == 0
            else {"failed": "see the error above"}
        )
        rows.append(row)
    return rows


# ---- all ------------------------------------------------------------------------------------


def repeat(
    one_round: Callable[[int], dict[str, float]], settings: argparse.Namespace, *, title: str
) -> dict[str, list[float]]:
    """Rounds of interleaved variants, the first of them to warm up."""
    times: dict[str, list[float]] = {}
    started = time.perf_counter()
    for turn in range(settings.warmup + settings.rounds):
        seconds = one_round(turn)
        if turn < settings.warmup:
            started = time.perf_counter()
        else:
            for name, value in seconds.items():
                times.setdefault(name, []).append(value)
        print(f"{title}: round {turn + 1}", file=sys.stderr)
        is_late = time.perf_counter() - started > settings.case_s
        if is_late and turn + 1 >= settings.warmup + MIN_ROUNDS:
            break
    return times


def measure(settings: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(settings.device)
    report: dict[str, Any] = {"machine": machine(device) | versions()}
    rates = {d: ceilings(device, getattr(torch, d)) for d in ("float32", "bfloat16")}
    report["ceilings"] = rates
    if "encoder" in settings.parts:
        encoder = build_clip().to(device)
        cases = zip(settings.strides, settings.batch, strict=False)
        report["encoder"] = [measure_encoder(encoder, s, b, settings) for s, b in cases]
    if "labelling" in settings.parts:
        report["labelling"] = [measure_labelling(k, settings) for k in ("smooth", "independent")]
    if "memory" in settings.parts and device.type == "cpu":
        report["memory"] = measure_memory(settings)
    return report


def versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("transformers", "onnxruntime", "openvino"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--parts", nargs="+", default=["encoder", "labelling", "memory"])
    parser.add_argument("--strides", type=int, nargs="+", default=[16, 8, 4])
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 1, 1], help="per stride")
    parser.add_argument("--engines", nargs="+", choices=ENGINES)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--case-s", type=float, default=240.0)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/inference.json"))
    parser.add_argument("--memory-of", choices=ENGINES, help=argparse.SUPPRESS)
    settings = parser.parse_args(arguments)
    if settings.engines is None:
        settings.engines = [n for n in ENGINES if settings.device == "cpu" or not packages_of(n)]
    return settings


def main() -> None:
    settings = parse()
    torch.set_num_threads(1)
    if settings.memory_of:
        print(photo_bytes(settings.memory_of))
        return
    from tables import inference_table

    report = measure(settings)
    write_report(settings.output, report, inference_table(report))
    print(inference_table(report))


if __name__ == "__main__":
    main()
