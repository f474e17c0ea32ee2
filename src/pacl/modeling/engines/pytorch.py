"""The frozen tower's blocks run by torch: float32 or bfloat16, compiled or not."""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from pacl.errors import EnvironmentProblem
from pacl.modeling.towers.token_kinds import Grid
from pacl.modeling.towers.walk import PatchTower, onednn_products

COMPILER = "inductor"
"""torch.compile's backend."""
MAX_VARIANTS = 64
"""Kinds, layers, and single or several images, that are compiled in one process."""


class Float32Run:
    """Runs a tower as it is, by oneDNN where that is faster and as exact.

    Args:
        tower: Float32 weights.
        is_compiled: Whether torch.compile compiles it at the first call.
    """

    def __init__(self, tower: PatchTower, *, is_compiled: bool = False) -> None:
        self._forward = Compiled(tower) if is_compiled else tower

    def __call__(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Return the patch tokens."""
        with onednn_products():
            return self._forward(tokens, grid)


class Bfloat16Run:
    """Runs a copy of a tower whose products take bfloat16; sums along the blocks stay float32.

    The linear layers' weights are converted once: autocast alone would do it in every call.

    Args:
        tower: Float32 weights, which are not changed.
        is_compiled: Whether torch.compile compiles the copy at the first call.
    """

    def __init__(self, tower: PatchTower, *, is_compiled: bool = False) -> None:
        tower = copy.deepcopy(tower)
        for module in tower.blocks.modules():
            if isinstance(module, nn.Linear):
                module.to(torch.bfloat16)
        self._forward = Compiled(tower) if is_compiled else tower

    def __call__(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Return the patch tokens."""
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16):
            return self._forward(tokens, grid)


class Compiled:
    """A tower through torch.compile, for any number of images and tokens.

    A missing compiler shows at the first call only (EnvironmentProblem). Dynamo takes seconds to
    import, and is imported here alone.

    Args:
        tower: The module to compile.
    """

    def __init__(self, tower: PatchTower) -> None:
        from torch._dynamo import config

        # Dynamo counts the variants of all towers together, and beyond its limit compiles no more.
        config.recompile_limit = max(config.recompile_limit, MAX_VARIANTS)
        self._compiled: Any = torch.compile(tower, dynamic=True, backend=COMPILER)

    def __call__(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Return the patch tokens."""
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self._compiled(tokens, grid)
        except TorchDynamoException as error:
            raise EnvironmentProblem(
                "torch.compile does not work here",
                why="\n".join(str(error).strip().splitlines()[:2]),
                fix="an engine that needs no compiler: --engine torch, torch-bf16 or auto",
            ) from error
