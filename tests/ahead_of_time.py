"""Compiles the Triton kernels for GPUs that need not be here, and prints what each one uses.

A script of its own, since Triton decides at import whether kernels are compiled or interpreted.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pacl.modeling.kernels.fused import launch_options
from pacl.modeling.kernels.fused_kernels import (
    coefficients_kernel,
    quadratic_kernel,
    weights_kernel,
)

N_PATCHES = 196
POINTERS = {torch.float16: "*fp16", torch.float32: "*fp32"}
ROUNDED = {"weights_ptr", "gram_ptr", "coefficients_ptr", "pull_ptr"}


def compile_for(kernel: Any, capability: int, rounded: torch.dtype) -> dict[str, Any]:
    """Registers, shared memory and stack (where registers spill to) of one kernel."""
    options = launch_options(N_PATCHES, rounded)
    signature, constants, alignment = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in options:
            signature[name], constants[name] = "constexpr", options[name]
        elif name.endswith("_ptr"):
            signature[name] = POINTERS[rounded if name in ROUNDED else torch.float32]
            alignment[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
    compiled = triton.compile(
        ASTSource(kernel, signature, constants, alignment),
        target=GPUTarget("cuda", capability, 32),
        options={name: value for name, value in options.items() if name.islower()},
    )
    with tempfile.TemporaryDirectory() as directory:
        cubin = Path(directory, "kernel.cubin")
        cubin.write_bytes(compiled.asm["cubin"])
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(cubin)]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {
        "kernel": kernel.__name__,
        "capability": capability,
        "rounded": str(rounded),
        "registers": int(re.findall(r"REG:(\d+)", usage)[0]),
        "stack": int(re.findall(r"STACK:(\d+)", usage)[0]),
        "shared": compiled.metadata.shared,
    }


if __name__ == "__main__":
    for kernel in (weights_kernel, quadratic_kernel, coefficients_kernel):
        for capability in (80, 90):
            for rounded in POINTERS:
                print(json.dumps(compile_for(kernel, capability, rounded)))
