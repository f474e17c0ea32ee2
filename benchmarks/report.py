"""Writes docs/performance.md from the JSON files in benchmarks/results.

    python benchmarks/report.py

The files there are <benchmark>-<device>.json, or <benchmark>-<device>-<machine>.json for a second
machine; what has no file says "not measured".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loss
from tables import inference_table, training_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TARGET = ROOT / "docs" / "performance.md"

HEAD = """# Speed and memory

Written by `benchmarks/report.py` from the files in `benchmarks/results`; nothing here is typed by
hand. Variants of a table ran interleaved in one process on new random inputs each round; times are
medians with quartiles. On a CPU they are CPU seconds of one thread, so ratios within a table can be
relied on, and absolute values only for this machine.

## Engines

`pacl.load(..., engine=...)` and `--engine` select what runs the frozen encoder on images; text
embeddings, embedder and labels are the same for all.

| engine | products | where |
|---|---|---|
| `torch` (default) | float32; by oneDNN where that is as exact | any device |
| `torch-bf16` | bfloat16, sums along the blocks in float32 | any device with bfloat16 |
| `torch-compiled` | as `torch`, by torch.compile | with a compiler; a minute at first |
| `torch-bf16-compiled` | as `torch-bf16`, by torch.compile | the same |
| `onnx` | float32 | CPU, `pip install onnx onnxscript onnxruntime` |
| `openvino` | float32 | CPU, `pip install onnx onnxscript openvino` |
| `openvino-bf16` | bfloat16 | CPU, the same |

`auto` measures those that are installed and need no compiler, in bfloat16 too where the machine
multiplies it in hardware (AVX512-BF16, AMX, GPUs), on the model's own tower at its first use, and
keeps the fastest in the cache, by machine, versions and tower. The column "equal pixels" below
is the share of pixels with the same label as transformers' own float32 forward pass, in the worst
round. ONNX Runtime and OpenVINO run a graph that is exported at the first use, and kept in
`~/.cache/pacl/engines` ($XDG_CACHE_HOME); it serves every image size and patch stride, and all
kinds of tokens but naclip. Merged grids (`--grid merged`) are left to torch, at the same precision.

On an NVIDIA GPU nothing has been measured: none was at hand. The first command there is

    bash benchmarks/run_gpu.sh

which takes at most ten minutes, writes each result as it comes, and this page at the end; with
`--dry-run` the same commands run on a CPU at tiny sizes. `make bench` compares the ratios of a CPU
with those recorded on the same kind of machine, and `python benchmarks/large_image.py` measures the
memory of 81 megapixels.
"""

SECTIONS: dict[str, tuple[str, str, Callable[[dict[str, Any]], str]]] = {
    "loss": ("The compatibility and its loss", "benchmarks/loss.py", loss.table),
    "inference": ("Dense inference", "benchmarks/inference.py", inference_table),
    "training_step": (
        "A training step",
        'benchmarks/training_step.py [--variants "cached tokens" "cached tokens, 64 patches"]',
        training_table,
    ),
}


def render(results: Path = RESULTS) -> str:
    """The page."""
    parts = [HEAD]
    for name, (title, script, table) in SECTIONS.items():
        parts.append(f"## {title}\n\n`python {script}`\n")
        for device, heading in (("cpu", "CPU"), ("cuda", "GPU")):
            paths = sorted(results.glob(f"{name}-{device}*.json"))
            if not paths:
                parts.append(f"### {title}: {heading}\n\nnot measured\n")
            for path in paths:
                report = json.loads(path.read_text())
                machine = f", {report['machine']['cpu_capability']}" if len(paths) > 1 else ""
                parts.append(f"### {title}: {heading}{machine}\n\n{table(report)}")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(render())
