"""The frozen tower's blocks as one module, and the ways in which torch runs it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._dynamo import config as dynamo_config
from torch._dynamo.exc import TorchDynamoException

from pacl.errors import EnvironmentProblem
from pacl.modeling.towers.token_kinds import TOKEN_KINDS, Grid, apply_block

COMPILER = "inductor"
"""torch.compile's backend."""
MAX_VARIANTS = 64
"""Kinds, layers, and single or several images, that are compiled in one process."""


class PatchTower(nn.Module):
    """From the first block's input to normed patch tokens.

    Args:
        vision: A transformers `CLIPVisionModel`; its modules are shared, not copied.
        kind: How the last block mixes patches, a key of TOKEN_KINDS.
        layer: The last block, -1 the tower's last.

    Raises:
        ValueError: Unknown kind, or no such layer.
    """

    def __init__(self, vision: Any, *, kind: str, layer: int) -> None:
        super().__init__()
        n_layers = len(vision.encoder.layers)
        if kind not in TOKEN_KINDS:
            raise ValueError(f"kind must be one of {', '.join(TOKEN_KINDS)}, got {kind!r}")
        if not -n_layers <= layer <= -1:
            raise ValueError(f"layer must lie in -{n_layers}..-1, got {layer}")
        self.kind, self.layer = kind, layer
        self.blocks = vision.encoder.layers[: n_layers + 1 + layer]
        self.norm = vision.post_layernorm

    def forward(self, tokens: Float[Tensor, "B N E"], grid: Grid) -> Float[Tensor, "B T E"]:
        """Run the blocks, CLS first in tokens and dropped from what comes out."""
        *earlier, last = self.blocks
        for block in earlier:
            tokens = apply_block(block, tokens)
        return self.norm(TOKEN_KINDS[self.kind](last, tokens, grid)[:, 1:])


def run_float32(
    tower: PatchTower, *, is_compiled: bool = False
) -> Callable[[Tensor, Grid], Tensor]:
    """Run the tower as it is, by oneDNN where that is faster and as exact."""
    forward = _compile(tower) if is_compiled else tower

    def run(tokens: Tensor, grid: Grid) -> Tensor:
        with onednn_products():
            return forward(tokens, grid)

    return run


def run_bfloat16(
    tower: PatchTower, *, is_compiled: bool = False
) -> Callable[[Tensor, Grid], Tensor]:
    """Run a copy of the tower whose products take bfloat16; sums along the blocks stay float32.

    The linear layers' weights are converted once: autocast alone would do it in every call.
    """
    tower = copy.deepcopy(tower)
    for module in tower.blocks.modules():
        if isinstance(module, nn.Linear):
            module.to(torch.bfloat16)
    forward = _compile(tower) if is_compiled else tower

    def run(tokens: Tensor, grid: Grid) -> Tensor:
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16):
            return forward(tokens, grid)

    return run


def _compile(tower: PatchTower) -> Callable[[Tensor, Grid], Tensor]:
    """The tower through torch.compile, for any number of images and tokens.

    Where there is no compiler to be found, that shows at the first call only.
    """
    # Dynamo counts the variants of all towers together, and beyond its limit compiles no more.
    dynamo_config.recompile_limit = max(dynamo_config.recompile_limit, MAX_VARIANTS)
    compiled = torch.compile(tower, dynamic=True, backend=COMPILER)

    def forward(tokens: Tensor, grid: Grid) -> Tensor:
        try:
            return compiled(tokens, grid)
        except TorchDynamoException as error:
            raise EnvironmentProblem(
                "torch.compile does not work here",
                why="\n".join(str(error).strip().splitlines()[:2]),
                fix="an engine that needs no compiler: --engine torch, torch-bf16 or auto",
            ) from error

    return forward


@contextmanager
def onednn_products() -> Iterator[None]:
    """Have oneDNN in place of MKL multiply float32, on CPUs where that keeps float32's accuracy.

    Torch's setting is named "bf16" and allows rounding, but oneDNN rounds only where the CPU has
    AMX: there nothing is set.
    """
    flags = cpu_flags()
    backend = getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9
    if backend is None or "avx512f" not in flags or "amx_bf16" in flags:
        yield
        return
    before = backend.fp32_precision
    backend.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.fp32_precision = before


@cache
def cpu_flags() -> frozenset[str]:
    """What the CPU can do, in Linux's words (avx512f, avx512_bf16, amx_bf16); elsewhere nothing."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()
