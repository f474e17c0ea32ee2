"""Time, memory and accuracy of one step of the loss: forward and backward, per implementation.

    python benchmarks/loss.py                                     the CPU table, one thread
    python benchmarks/loss.py --batch 4096 --variants tiled --rounds 1 --warmup 0
    python benchmarks/loss.py --device cuda --dtype bfloat16 --batch 256 1024 4096 8192 16384 32768

Writes --output (JSON) and the same as a Markdown table beside it, anew after every size. Each round
draws new inputs and runs every variant on them; a size ends after --rounds rounds or --case-s
seconds. The numbers are medians over the rounds. On a CPU they are CPU seconds of one thread: on a
shared machine their ratios hold, their absolute values do not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import MIN_ROUNDS, PeakMemory, ceilings, machine, now_s, spread, write_report
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pacl.modeling.compatibility import patch_compatibility
from pacl.modeling.kernels.naive import naive_compatibility
from pacl.modeling.loss import contrastive_loss

TEMPERATURE = 0.1
LOGIT_SCALE = 14.0
CHUNK = 64  # images


def _literal(patches: Tensor, texts: Tensor) -> Tensor:
    """The equations as one writes them down, with the pooled vectors of all pairs."""
    unit_texts = functional.normalize(texts.float(), dim=-1)
    similarity = functional.normalize(patches.float(), dim=-1) @ unit_texts.T
    weights = (similarity / TEMPERATURE).softmax(dim=1)
    pooled = torch.einsum("itc,itd->icd", weights, patches.float())
    return functional.cosine_similarity(pooled, unit_texts, dim=-1)


def _naive(patches: Tensor, texts: Tensor) -> Tensor:
    return naive_compatibility(patches, texts, patches.new_tensor(TEMPERATURE, dtype=torch.float32))


def _autocast(patches: Tensor, texts: Tensor) -> Tensor:
    """What a plain training loop does: every product in bfloat16."""
    with torch.autocast(patches.device.type, dtype=torch.bfloat16):
        return _naive(patches, texts)


def _checkpointed(patches: Tensor, texts: Tensor) -> Tensor:
    chunks = [
        checkpoint(_naive, chunk, texts, use_reentrant=False) for chunk in patches.split(CHUNK)
    ]
    return torch.cat(chunks)  # type: ignore[arg-type]


def _own_caption(patches: Tensor, texts: Tensor) -> Tensor:
    """Another objective: each image is pooled with its own text only."""
    patches, texts = patches.float(), functional.normalize(texts.float(), dim=-1)
    own = (functional.normalize(patches, dim=-1) @ texts.unsqueeze(-1)).squeeze(-1)
    pooled = ((own / TEMPERATURE).softmax(dim=-1).unsqueeze(1) @ patches).squeeze(1)
    return functional.normalize(pooled, dim=-1) @ texts.T


def _pooled_clip(patches: Tensor, texts: Tensor) -> Tensor:
    """Another objective: CLIP's, on the mean of the patches."""
    pooled = functional.normalize(patches.float().mean(dim=1), dim=-1)
    return pooled @ functional.normalize(texts.float(), dim=-1).T


def _ours(implementation: str) -> Callable[[Tensor, Tensor], Tensor]:
    return partial(
        patch_compatibility, patch_temperature=TEMPERATURE, implementation=implementation
    )


VARIANTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "naive": _ours("naive"),
    "literal": _literal,
    "naive, autocast": _autocast,
    "naive, compiled": torch.compile(_naive),
    "naive, autocast, compiled": torch.compile(_autocast),
    "naive, checkpointed": _checkpointed,
    "tiled": _ours("tiled"),
    "fused": _ours("fused"),
    "another objective: own caption": _own_caption,
    "another objective: CLIP": _pooled_clip,
}


def draw(size: tuple[int, int, int], settings: argparse.Namespace, seed: int) -> list[Tensor]:
    """Patches that lean a little to their text, of lengths within a factor of four, and texts."""
    batch, n_patches, width = size
    generator = torch.Generator(settings.device).manual_seed(seed)
    options = {"generator": generator, "device": settings.device}
    texts = torch.randn(batch, width, **options)
    patches = torch.randn(batch, n_patches, width, **options)
    patches.mul_(1 + 3 * torch.rand(batch, n_patches, 1, **options))
    patches.add_(texts[:, None], alpha=0.2)
    return [patches.to(settings.dtype).requires_grad_(), texts.to(settings.dtype)]


def step(name: str, patches: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, float, float]:
    """The compatibility, the gradient of the patches, and the seconds forwards and backwards."""
    device = patches.device
    torch.full_like(patches, float("nan"))  # what is not written shall not look right by chance
    start = now_s(device)
    compatibility = VARIANTS[name](patches, texts)
    loss = contrastive_loss(compatibility, LOGIT_SCALE)
    middle = now_s(device)
    (gradient,) = torch.autograd.grad(loss, patches)
    return compatibility.detach(), gradient, middle - start, now_s(device) - middle


def errors(patches: Tensor, texts: Tensor, compatibility: Tensor, gradient: Tensor) -> dict:
    """Largest and relative error of the first images, against the same step in float64."""
    some = patches[:2].detach().double().requires_grad_()
    expected = patch_compatibility(
        some, texts.double(), patch_temperature=TEMPERATURE, implementation="naive"
    )
    value = compatibility.double().requires_grad_()
    (weighting,) = torch.autograd.grad(contrastive_loss(value, LOGIT_SCALE), value)
    (reference,) = torch.autograd.grad((expected * weighting[:2]).sum(), some)
    difference = (gradient[:2].double() - reference).norm() / reference.norm()
    return {
        "value_error": (compatibility[:2] - expected).abs().max().item(),
        "gradient_error": difference.item(),
    }


def measure_case(size: tuple[int, int, int], settings: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per variant; running out of memory is a result, too."""
    rows = {name: {"variant": name} for name in settings.variants}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in settings.variants}
    began = time.perf_counter()
    for turn in range(settings.warmup + settings.rounds):
        inputs = draw(size, settings, seed=turn)
        for name in [name for name in settings.variants if "failed" not in rows[name]]:
            try:
                compatibility, gradient, *seconds = step(name, *inputs)
                if turn == 0 and not name.startswith("another"):
                    rows[name] |= errors(*inputs, compatibility, gradient)
                del compatibility, gradient
            except (torch.OutOfMemoryError, ValueError) as problem:
                rows[name]["failed"] = type(problem).__name__ + ": " + str(problem).split("\n")[0]
                continue
            if turn >= settings.warmup:
                times[name].append((seconds[0], seconds[1]))
        print(f"B {size[0]} T {size[1]}: round {turn + 1}", file=sys.stderr)
        if turn + 1 == settings.warmup:
            began = time.perf_counter()  # not while torch.compile was at work
        is_late = time.perf_counter() - began > settings.case_s
        if is_late and turn + 1 >= settings.warmup + MIN_ROUNDS:
            break
    for name, row in rows.items():
        if "failed" not in row:
            row["forward_s"] = spread([forward for forward, _ in times[name]])
            row["backward_s"] = spread([backward for _, backward in times[name]])
            row["step_s"] = spread([sum(pair) for pair in times[name]])
            row["extra_bytes"] = _extra_bytes(name, size, settings)
    return list(rows.values())


def _extra_bytes(name: str, size: tuple[int, int, int], settings: argparse.Namespace) -> int:
    """Peak memory beyond the inputs and the gradient of the patches."""
    if settings.device == "cuda":
        return peak_bytes(name, size, settings)
    command = [sys.executable, __file__, "--memory-of", name, "--dtype", settings.dtype_name]
    command += ["--batch", str(size[0]), "--patches", str(size[1]), "--width", str(size[2])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def peak_bytes(name: str, size: tuple[int, int, int], settings: argparse.Namespace) -> int:
    """The same, for this process, which has measured nothing else if it is a CPU's."""
    step(name, *draw((2, *size[1:]), settings, seed=0))
    inputs = draw(size, settings, seed=0)
    with PeakMemory(torch.device(settings.device)) as peak:
        step(name, *inputs)
    return peak.bytes - inputs[0].nbytes


def floor_flops(batch: int, n_patches: int, width: int) -> float:
    """Of a step that computes the scores again in the backward, with the cheaper form."""
    unit = 2.0 * batch * batch * n_patches * width
    return unit * min(3 + 3 * n_patches / width, 7)


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [", ".join(f"{key} {value}" for key, value in report["machine"].items()), ""]
    peak = report["ceilings"]["matmul_flops"]
    lines += [f"Matrix products of {report['dtype']} reach {peak / 1e9:.0f} GFLOP/s in this run."]
    for case in report["cases"]:
        batch, n_patches, width = case["size"]
        naive = next((r for r in case["rows"] if r["variant"] == "naive"), {})
        lines += ["", f"B {batch}, T {n_patches}, D {width}", ""]
        lines += ["| variant | step s (quartiles) | naive / it | % of ceiling | extra MiB |"]
        lines[-1] += " error of value, gradient |"
        lines += ["|---|---|---|---|---|---|"]
        for row in case["rows"]:
            lines += [_table_row(row, naive, floor_flops(*case["size"]) / peak)]
    return "\n".join(lines) + "\n"


def _table_row(row: dict[str, Any], naive: dict[str, Any], floor_s: float) -> str:
    if "failed" in row:
        return f"| {row['variant']} | {row['failed']} | | | | |"
    time = row["step_s"]
    ratio = f"{naive['step_s']['median'] / time['median']:.2f}" if "step_s" in naive else ""
    is_ours = "value_error" in row
    share = f"{100 * floor_s / time['median']:.0f}" if is_ours else ""
    error = f"{row['value_error']:.1e}, {row['gradient_error']:.1e}" if is_ours else "not the same"
    return (
        f"| {row['variant']} | {time['median']:.3f} ({time['low']:.3f} to {time['high']:.3f}) "
        f"| {ratio} | {share} | {row['extra_bytes'] / 2**20:.0f} | {error} |"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", dest="dtype_name", default="float32")
    parser.add_argument("--batch", type=int, nargs="+", default=[256])
    parser.add_argument("--add", action="store_true", help="sizes to those in --output")
    parser.add_argument("--patches", type=int, nargs="+", default=[196])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--case-s", type=float, default=600.0)
    parser.add_argument("--onednn", choices=["bf16"], help="route float32 products to oneDNN")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/loss.json"))
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    settings.dtype = getattr(torch, settings.dtype_name)
    if settings.variants is None:
        settings.variants = [n for n in VARIANTS if n != "fused" or settings.device == "cuda"]
    return settings


def main() -> None:
    settings = parse()
    torch.set_num_threads(1)
    if settings.onednn:
        torch.backends.mkldnn.matmul.fp32_precision = settings.onednn
    sizes = [(b, t, settings.width) for b in settings.batch for t in settings.patches]
    if settings.memory_of:
        print(peak_bytes(settings.memory_of, sizes[0], settings))
        return
    device = torch.device(settings.device)
    report: dict[str, Any] = {
        "machine": machine(device) | {"onednn": settings.onednn},
        "dtype": settings.dtype_name,
        "ceilings": ceilings(device, settings.dtype),
        "cases": [],
    }
    if settings.add and settings.output.exists():
        before = json.loads(settings.output.read_text())
        if before | {"cases": [], "ceilings": report["ceilings"]} != report:
            sys.exit(f"{settings.output} is of another machine, day or type: not added to it")
        report = before | {"cases": [c for c in before["cases"] if tuple(c["size"]) not in sizes]}
    for size in sizes:
        report["cases"].append({"size": size, "rows": measure_case(size, settings)})
        write_report(settings.output, report, table(report))
    print(table(report))


if __name__ == "__main__":
    main()
