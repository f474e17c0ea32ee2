"""The contrastive loss across processes, exactly: as if one process held the whole batch.

Each rank scores its own images against all texts; patches never travel. Row by row the loss is
local. Column by column it needs the log-sum-exp over the images of all ranks: one collective of a
number per text and rank. What every rank then computes is the gradient for its own rows alone, so
gradients of shared parameters are to be summed over the ranks (``sum_gradients``), not averaged.

Without an initialised process group there is one rank, and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, distributed, nn


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if _is_grouped() else 0


def world_size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if _is_grouped() else 1


def gather_texts(text_embeds: Float[Tensor, "c D"]) -> Float[Tensor, "C D"]:
    """The texts of all ranks, rank by rank, in the order that every rank sees.

    Args:
        text_embeds: As many on every rank. Where they are trained, each rank gets back the
            gradient of its own texts, summed over the images of all ranks.
    """
    return _GatherRows.apply(text_embeds) if world_size() > 1 else text_embeds


def contrastive_loss_across_ranks(
    compatibility: Float[Tensor, "i C"],
    logit_scale: float | Tensor,
    *,
    positives: Bool[Tensor, "i C"],
) -> Float[Tensor, ""]:
    """``pacl.contrastive_loss`` of the joined batch, of which this rank holds some rows.

    Args:
        compatibility: Of this rank's images with the texts of all ranks, in [-1, 1].
        logit_scale: Multiplies the compatibility.
        positives: True where text j describes this rank's image i. With each image's own caption
            alone, and b images per rank, that is column rank() b + i.

    Returns:
        The loss of the joined batch, the same on every rank; its gradient is that for this rank's
        rows.
    """
    with torch.autocast(compatibility.device.type, enabled=False):
        logits = compatibility.to(torch.promote_types(compatibility.dtype, torch.float32))
        logits = logits * logit_scale
        per_image = positives.sum(dim=1)
        per_text = _sum_over_ranks(positives.sum(dim=0))
        n_images = _sum_over_ranks((per_image > 0).sum()).clamp(min=1)
        n_texts = (per_text > 0).sum().clamp(min=1)

        # -1/|P_i| sum_j (z_ij - R_i) for rows, -1/|P_j| sum_i (z_ij - C_j) for columns.
        chosen = logits.masked_fill(~positives, 0)
        row_terms = (per_image > 0) * logits.logsumexp(dim=1)
        row_terms = row_terms - chosen.sum(dim=1) / per_image.clamp(min=1)
        own = row_terms.sum() / n_images - (chosen / per_text.clamp(min=1)).sum() / n_texts
        columns = ((per_text > 0) * _ColumnLogSumExp.apply(logits)).sum() / n_texts
        of_all_ranks = _sum_over_ranks(own.detach()) + (own - own.detach())  # with own's gradient
        return (of_all_ranks + columns) / 2


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up every parameter's gradient over the ranks, in place, in one collective per type."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
        group = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = _sum_over_ranks(torch.cat([gradient.flatten() for gradient in group]))
        parts = flat.split([gradient.numel() for gradient in group])
        for gradient, part in zip(group, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


class _ColumnLogSumExp(torch.autograd.Function):
    """log sum_i exp(z_ij) over the rows of all ranks; its gradient is that of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        # Gathered in the order of ranks, not reduced: the result is equal to the bit everywhere.
        total = _stack_ranks(logits.logsumexp(dim=0)).logsumexp(dim=0)
        ctx.save_for_backward(logits, total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        logits, total = ctx.saved_tensors
        return (logits - total).exp() * gradients[0]


class _GatherRows(torch.autograd.Function):
    """Rows of all ranks; backwards, the sum over ranks of the gradient of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return _stack_ranks(rows).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _sum_over_ranks(gradients[0]).chunk(world_size())[rank()]


def _is_grouped() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _stack_ranks(value: Tensor) -> Tensor:
    """The values of all ranks, in a new first dimension."""
    if world_size() == 1:
        return value[None]
    values = [torch.empty_like(value) for _ in range(world_size())]
    distributed.all_gather(values, value.contiguous())
    return torch.stack(values)


def _sum_over_ranks(value: Tensor) -> Tensor:
    if world_size() == 1:
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value
