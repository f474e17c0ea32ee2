"""CLIP's symmetric InfoNCE without another float matrix of all pairs than its own gradient.

With z = logit scale x compatibility, P_i the positives of image i and P_j those of text j:

    R_i = log sum_j exp z_ij        w_i = 1 / images with a positive, 0 for the others
    C_j = log sum_i exp z_ij        w_j = 1 / texts with a positive, 0 for the others
    y_ij = w_i / |P_i| + w_j / |P_j| for a positive pair, else 0
    2 loss = sum_i w_i R_i + sum_j w_j C_j - sum_ij y_ij z_ij
    2 d loss / d z_ij = w_i exp(z_ij - R_i) + w_j exp(z_ij - C_j) - y_ij

Pairs that are left out are missing from R and C.
Rows are taken a few at a time, and again in the backward: beside the compatibility and its
gradient, only numbers for single rows and columns are held. A process that holds some of the rows
needs of the others only what is summed over the images, which it is given functions for. All is
computed in float64, so that float32 hardly ever shows the order of the sums.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from pacl.modeling.kernels.forms import refuse_second_derivative

CHUNK = 2**19
"""Pairs looked at together; 4 MiB in float64, several times."""
GPU_CHUNK = 2**23
"""The same on an accelerator, where every launch costs."""

Collective = Callable[[Tensor], Tensor]


def info_nce(
    compatibility: Tensor,
    logit_scale: Tensor,
    positives: Tensor,
    *,
    left_out: Tensor | None = None,
    sum_over_ranks: Collective = lambda own: own,
    stack_ranks: Collective = lambda own: own[None],
) -> Tensor:
    """The loss of all rows, of which these may be a share.

    Args:
        compatibility: (I, C), float32 or float64.
        logit_scale: One number, shape ().
        positives: (I, C) boolean.
        left_out: (I, C) boolean, True for pairs that no sum counts, and for no positive; or None.
        sum_over_ranks: Gives the sum over all shares of a tensor's value.
        stack_ranks: Gives the values of all shares in a new first dimension.

    Returns:
        A scalar >= 0. It can be differentiated once; the gradients are those of these rows.
    """
    return _InfoNce.apply(  # type: ignore[no-any-return]
        compatibility, logit_scale, positives, left_out, sum_over_ranks, stack_ranks
    )


def fits_one_chunk(compatibility: Tensor) -> bool:
    """Whether nothing would be gained over plain operations."""
    return compatibility.numel() <= _chunk_size(compatibility)


class _InfoNce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        compatibility: Tensor,
        logit_scale: Tensor,
        positives: Tensor,
        left_out: Tensor | None,
        sum_over_ranks: Collective,
        stack_ranks: Collective,
    ) -> Tensor:
        parts = [positives[part] for part in iter_chunks(positives)]  # a sum makes integers of them
        per_image = torch.cat([part.sum(dim=1) for part in parts])
        per_text = sum_over_ranks(torch.stack([part.sum(dim=0) for part in parts]).sum(dim=0))
        n_images = sum_over_ranks((per_image > 0).sum()).clamp(min=1)
        n_texts = (per_text > 0).sum().clamp(min=1)
        row_weight = (per_image > 0).double() / n_images
        column_weight = (per_text > 0).double() / n_texts
        pulls = row_weight / per_image.clamp(min=1), column_weight / per_text.clamp(min=1)

        rows = torch.empty_like(row_weight)
        columns = torch.full_like(column_weight, -torch.inf)
        pulled = row_weight.new_zeros(())
        for part in iter_chunks(compatibility):
            logits = _logits(compatibility, logit_scale, left_out, part)
            rows[part] = logits.logsumexp(dim=1)
            columns = torch.logaddexp(columns, logits.logsumexp(dim=0))
            pulled += logits.mul_(_pull(positives, pulls, part)).sum()
        # Stacked in the order of ranks, not reduced: the result is equal to the bit everywhere.
        columns = stack_ranks(columns).logsumexp(dim=0)
        ctx.save_for_backward(
            compatibility,
            logit_scale,
            positives,
            left_out,
            rows,
            columns,
            row_weight,
            column_weight,
            *pulls,
        )
        own = _weighted(row_weight, rows) - pulled
        loss = (sum_over_ranks(own) + _weighted(column_weight, columns)) / 2
        return loss.to(compatibility.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_compatibility, d_scale = _Gradient.apply(*gradients, *ctx.saved_tensors)
        return d_compatibility, d_scale, None, None, None, None


class _Gradient(torch.autograd.Function):
    """The backward, as a function of its own: one that refuses to be differentiated."""

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        compatibility: Tensor,
        logit_scale: Tensor,
        positives: Tensor,
        left_out: Tensor | None,
        rows: Tensor,
        columns: Tensor,
        row_weight: Tensor,
        column_weight: Tensor,
        *pulls: Tensor,
    ) -> tuple[Tensor, Tensor]:
        d_compatibility = torch.empty_like(compatibility)
        d_scale = torch.zeros_like(logit_scale, dtype=torch.float64)
        for part in iter_chunks(compatibility):
            logits = _logits(compatibility, logit_scale, left_out, part)
            slope = (logits - rows[part, None]).exp_().mul_(row_weight[part, None])
            slope += logits.sub_(columns).exp_().mul_(column_weight)
            slope -= _pull(positives, pulls, part)
            slope *= gradient / 2
            d_scale += (slope * compatibility[part]).sum()
            d_compatibility[part] = slope.mul_(logit_scale)
        return d_compatibility, d_scale.to(logit_scale.dtype)

    backward = staticmethod(refuse_second_derivative)


def _chunk_size(pairs: Tensor) -> int:
    return CHUNK if pairs.device.type == "cpu" else GPU_CHUNK


def iter_chunks(pairs: Tensor) -> Iterator[slice]:
    """Slices of rows; a single empty one where there is no row."""
    n_rows, n_columns = pairs.shape
    step = max(1, _chunk_size(pairs) // max(1, n_columns))
    for start in range(0, max(1, n_rows), step):
        yield slice(start, start + step)


def _logits(compatibility: Tensor, scale: Tensor, left_out: Tensor | None, part: slice) -> Tensor:
    """The logits z of some rows; so low that it counts nowhere where a pair is left out."""
    logits = compatibility[part].double() * scale
    if left_out is None:
        return logits
    return logits.masked_fill_(left_out[part], torch.finfo(logits.dtype).min)


def _pull(positives: Tensor, pulls: Any, part: slice) -> Tensor:
    """The factors y of some rows."""
    return (pulls[0][part, None] + pulls[1]).mul_(positives[part])


def _weighted(weight: Tensor, value: Tensor) -> Tensor:
    """The weighted sum; without a weight, -inf is 0."""
    return (weight * value.masked_fill(weight == 0, 0)).sum()
