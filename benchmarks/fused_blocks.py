"""Which blocks suit the Triton kernels on this GPU: the time of a step for each choice.

    python benchmarks/fused_blocks.py                               an NVIDIA GPU, bfloat16
    TRITON_INTERPRET=1 python benchmarks/fused_blocks.py --device cpu --batch 2 --patches 20

Runs forward and backward of the fused compatibility with other values of launch_options(), checks
that the values stay the same, and prints the choices, fastest first, with the share of the rows and
columns of a product that is padding. Writes --output (JSON) after every choice. The best one goes
into modeling/kernels/fused.py by hand, and must still compile without a spill (its test file).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch
from loss import LOGIT_SCALE, TEMPERATURE, draw
from measure import machine, now_s

from pacl.modeling.compatibility import patch_compatibility
from pacl.modeling.kernels import fused
from pacl.modeling.loss import contrastive_loss

GRID = {
    "BLOCK_T": (16, 32, 64, 128),
    "BLOCK_C": (64, 128),
    "BLOCK_K": (16, 32, 64),
    "num_warps": (4, 8),
    "num_stages": (3,),
}


def padding(n_patches: int, options: dict[str, Any]) -> float:
    """How much larger the padded product of the Gram matrix and the weights is."""
    rows, inner = (-(-n_patches // options[k]) * options[k] for k in ("BLOCK_T", "BLOCK_K"))
    return rows * inner / n_patches**2 - 1


def step_s(inputs: list[torch.Tensor]) -> tuple[float, torch.Tensor]:
    device = inputs[0].device
    start = now_s(device)
    value = patch_compatibility(*inputs, patch_temperature=TEMPERATURE, implementation="fused")
    torch.autograd.grad(contrastive_loss(value, LOGIT_SCALE), inputs[0])
    return now_s(device) - start, value.detach()


def measure(options: dict[str, Any], n_patches: int, settings: argparse.Namespace) -> dict:
    """One row; what does not compile for this GPU is a result, too."""
    inputs = draw((settings.batch, n_patches, settings.width), settings, seed=0)
    row: dict[str, Any] = {"patches": n_patches, "options": options}
    row["padding"] = padding(n_patches, options)
    _, expected = step_s(inputs)
    own = fused.launch_options
    fused.launch_options = lambda n, kind: own(n, kind) | options
    try:
        step_s(inputs)
        times, values = zip(*(step_s(inputs) for _ in range(settings.rounds)), strict=True)
        row["step_s"] = min(times)
        row["difference"] = max((value - expected).abs().max().item() for value in values)
    except Exception as problem:  # Triton has no common class for what it cannot compile or launch
        row["failed"] = f"{type(problem).__name__}: {str(problem).splitlines()[0]}"
    finally:
        fused.launch_options = own
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--patches", type=int, nargs="+", default=[196, 625])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="choices tried; none: all")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/fused_blocks.json"))
    settings = parser.parse_args()
    settings.dtype = torch.bfloat16
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": machine(torch.device(settings.device)), "rows": []}
    choices = [dict(zip(GRID, each, strict=True)) for each in itertools.product(*GRID.values())]
    for n_patches in settings.patches:
        for options in choices[: settings.limit]:
            report["rows"].append(measure(options, n_patches, settings))
            settings.output.write_text(json.dumps(report, indent=1) + "\n")
            print(report["rows"][-1], file=sys.stderr)
    print("| patches | " + " | ".join(GRID) + " | padding | step ms | difference |")
    print("|---" * (len(GRID) + 4) + "|")
    worst = float("inf")
    for row in sorted(report["rows"], key=lambda r: (r["patches"], r.get("step_s", worst))):
        cells = [row["patches"], *row["options"].values(), f"{row['padding']:.0%}"]
        cells += (
            [f"{1e3 * row['step_s']:.2f}", f"{row['difference']:.1e}"]
            if "step_s" in row
            else [row["failed"], ""]
        )
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
