"""A forward and its backward as one operator, which torch.compile and torch.export keep whole."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pacl.modeling.kernels.forms import refuse_second_derivative

Forward = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Patches (I, T, D), texts (C, D) and temperature -> compatibility and 1 / sqrt(Q), both (I, C)."""

Backward = Callable[..., tuple[Tensor, Tensor, Tensor]]
"""Gradient, the inputs and outputs of the forward, and which of the inputs' gradients are needed
-> those gradients; an empty tensor for one that is not needed."""

_FORWARD = "(Tensor patch_embeds, Tensor texts, Tensor temperature) -> (Tensor, Tensor)"
_BACKWARD = (
    "(Tensor gradient, Tensor patch_embeds, Tensor texts, Tensor temperature, "
    "Tensor compatibility, Tensor inverse_norm, bool[] needed) -> (Tensor, Tensor, Tensor)"
)


def define_operator(name: str, forward: Forward, backward: Backward) -> Forward:
    """Define ``pacl::name`` and ``pacl::name_backward``, and return the first.

    The parts of torch.library are used, not `torch.library.custom_op`, whose first call imports
    torch._dynamo: a second and 160 MB, though nothing is compiled.
    """

    def differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        needed = list(ctx.needs_input_grad)
        # Contiguous: that of a loss over columns may be transposed, which a kernel would not see.
        gradients = run_backward(gradient.contiguous(), *ctx.saved_tensors, needed)
        return tuple(g if yes else None for g, yes in zip(gradients, needed, strict=True))

    run_forward = _define(name, _FORWARD, forward, _fake_forward)
    run_backward = _define(f"{name}_backward", _BACKWARD, backward, _fake_backward)
    torch.library.register_autograd(f"pacl::{name}", differentiate, setup_context=_keep)
    torch.library.register_autograd(f"pacl::{name}_backward", refuse_second_derivative)
    return run_forward


def _define(name: str, schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    torch.library.define(f"pacl::{name}", schema, tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(f"pacl::{name}", "default", run)
    torch.library.register_fake(f"pacl::{name}", fake)
    return getattr(torch.ops.pacl, name).default


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _fake_forward(
    patch_embeds: Tensor, texts: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor]:
    compatibility = temperature.new_empty(len(patch_embeds), len(texts))
    return compatibility, torch.empty_like(compatibility)


def _fake_backward(gradient: Tensor, *inputs_outputs_needed: Any) -> tuple[Tensor, Tensor, Tensor]:
    patch_embeds, texts, temperature, _, _, needed = inputs_outputs_needed
    return (
        torch.empty_like(patch_embeds) if needed[0] else patch_embeds.new_empty(0),
        torch.empty_like(texts) if needed[1] else texts.new_empty(0),
        torch.empty_like(temperature),
    )
