"""A torchvision built for another torch, which transformers would import and fail with.

pip installs such a pair easily: torch for the CPU, and beside it a torchvision for CUDA.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from importlib.util import find_spec

import torch

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def guard_against_torchvision() -> torch.library.Library | None:
    """Make transformers importable beside any torchvision; call it before the first import.

    A torchvision that cannot be imported lacks its compiled operators, and its Python asks for
    them by name. They are declared, without a body, and it is imported again: transformers, timm
    and open_clip need no more. If that fails too, this process has no torchvision any more.

    Returns:
        What keeps the declarations alive; None: nothing was declared.
    """
    if find_spec("torchvision") is None or _can_import_torchvision():
        return None
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        declared.define(operator)  # pyright: ignore[reportUnknownMemberType]
    if _can_import_torchvision():
        return declared
    sys.modules["torchvision"] = None  # pyright: ignore[reportArgumentType]  # "not installed"
    return None


def _can_import_torchvision() -> bool:
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError, AttributeError):
        return False
    return True
