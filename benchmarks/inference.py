"""Time, memory and agreement of dense inference: from images to one label per pixel.

    python benchmarks/inference.py                       one CPU thread, all parts, all engines here
    python benchmarks/inference.py --device cuda --batch 64 16 4
    python benchmarks/inference.py --rounds 3 --case-s 30 --parts encoder --strides 16

Three parts. `encoder`: a CLIP ViT-B/16 of random weights, 224 px, 150 names, at each patch stride;
the baseline is transformers' own float32 forward with F.interpolate and argmax. It runs all 12
blocks; pacl ends with the one whose tokens are wanted, at layer -4 (the default of `pacl train`)
the ninth. `labelling`: upsampling and labelling alone, against the same done by torch with all
scores held. `memory`: what segmenting one photograph of 4,000 x 3,000 px adds to the model.

Writes --output (JSON) and the same as a Markdown table beside it, anew after every case. Each round
draws new inputs and runs every variant on them; a case ends after --rounds rounds or --case-s
seconds. On a CPU the numbers are CPU seconds of one thread: on a shared machine their ratios hold,
their absolute values do not.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from labelling import N_NAMES, measure_labelling
from measure import PeakMemory, ceilings, machine, now_s, repeat, spread, write_report
from random_clip import build_clip, draw_images, draw_names, library_tokens
from torch import Tensor
from torch.nn import functional as F

from pacl.errors import PaclError
from pacl.inference.config import SegmentConfig
from pacl.inference.labelling import label_pixels
from pacl.inference.segmenter import Segmenter, build_scorer
from pacl.modeling.engines import ENGINES, packages_of
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers.hf import HfClip

SIZE_PX = 224
LIBRARY = "transformers float32, interpolate + argmax"
PHOTO_PX = (4000, 3000)

Labeller = Callable[[Tensor], Tensor]


# ---- the encoder and the labels ---------------------------------------------------------------


def library_labeller(encoder: HfClip, names: Tensor, stride_px: int, layer: int) -> Labeller:
    """transformers' CLIP with its convolution's stride set, and the scores of all pixels held."""
    forward = library_tokens(encoder, stride_px, layer)

    @torch.inference_mode()
    def label(images: Tensor) -> Tensor:
        tokens, grid = forward(images)
        embeds = F.normalize(encoder.clip.visual_projection(tokens), dim=-1)
        scores = (embeds @ names.T).mT.unflatten(2, grid)
        return F.interpolate(scores, images.shape[2:], mode="bilinear").argmax(dim=1) + 1

    return label


def pacl_labeller(
    encoder: HfClip, names: Tensor, stride_px: int, layer: int, engine: str
) -> Labeller:
    """pacl with one of its engines."""
    model = Pacl(encoder=encoder, embedder=None, token_layer=layer)
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
    encoder: HfClip, stride_px: int, layer: int, batch: int, settings: argparse.Namespace
) -> dict[str, Any]:
    """One row per variant at one stride and layer."""
    device = torch.device(settings.device)
    names = draw_names(encoder, N_NAMES, layer=layer)
    labellers = {LIBRARY: library_labeller(encoder, names, stride_px, layer)}
    rows: dict[str, dict[str, Any]] = {LIBRARY: {"variant": LIBRARY}}
    for engine in settings.engines:
        try:
            labellers[engine] = pacl_labeller(encoder, names, stride_px, layer, engine)
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

    times = repeat(one_round, settings, title=f"stride {stride_px}, layer {layer}")
    for name, row in rows.items():
        if name in times:
            row |= {"image_s": spread(times[name]), "equal_pixels": min(equal[name])}
    if stride_px == encoder.patch_size_px and layer == -1:
        add_token_errors(encoder, rows, settings)
    return {
        "stride_px": stride_px,
        "layer": layer,
        "batch": batch,
        "labels_per_round": min(n_labels),
        "gflop": encoder_flops(encoder, stride_px) / 1e9,
        "pacl_gflop": encoder_flops(encoder, stride_px, layer) / 1e9,
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


def encoder_flops(encoder: HfClip, stride_px: int, layer: int = -1) -> float:
    """Of one image: the products of the blocks up to a layer, patch embedding and projection."""
    side = (SIZE_PX - encoder.patch_size_px) // stride_px + 1
    n, width = side * side + 1, encoder.width
    block = 2 * n * 12 * width**2 + 2 * 2 * n * n * width
    ends = 2 * n * width * (3 * encoder.patch_size_px**2 + encoder.joint_width)
    return float((encoder.n_layers + 1 + layer) * block + ends)


# ---- memory of a large photograph -------------------------------------------------------------


def photo_bytes(engine: str) -> int:
    """Peak memory that one large photograph adds to a loaded model; for a process of its own."""
    from PIL import Image

    encoder = build_clip()
    model = Pacl(encoder=encoder, embedder=None)
    model.use_engine(engine)
    names = draw_names(encoder, N_NAMES)

    def segment(width: int, height: int) -> None:
        segmenter = Segmenter(
            build_scorer(model, names),
            encoder=encoder,
            labels=tuple(map(str, range(N_NAMES))),
            class_of_name=torch.arange(N_NAMES),
            logit_scale=100.0,
            config=SegmentConfig(),
        )
        image = Image.effect_noise((width, height), 80).convert("RGB")
        segmenter.segment([segmenter.prepare(image)])

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


def iter_reports(settings: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The report as it grows."""
    device = torch.device(settings.device)
    report: dict[str, Any] = {"machine": machine(device) | versions()}
    rates = {d: ceilings(device, getattr(torch, d)) for d in ("float32", "bfloat16")}
    report["ceilings"] = rates
    if "labelling" in settings.parts:
        report["labelling"] = [measure_labelling(k, settings) for k in ("smooth", "independent")]
        yield report
    if "memory" in settings.parts and device.type == "cpu":
        report["memory"] = measure_memory(settings)
        yield report
    if "encoder" in settings.parts:
        encoder = build_clip().to(device)
        report["encoder"] = []
        for stride, batch in zip(settings.strides, settings.batch, strict=False):
            for layer in settings.layers:
                case = measure_encoder(encoder, stride, layer, batch, settings)
                report["encoder"].append(case)
                yield report


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
    parser.add_argument("--layers", type=int, nargs="+", default=[-1, -4])
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

    for report in iter_reports(settings):
        write_report(settings.output, report, inference_table(report))
    print(settings.output.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
