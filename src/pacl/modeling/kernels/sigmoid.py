"""SigLIP's loss of all pairs without another float matrix of them than its own gradient.

With z = scale x compatibility + bias, and y = 1 for a positive pair, -1 for any other:

    loss = 1/B sum_ij softplus(-y_ij z_ij)          d loss / d z_ij = -y_ij sigmoid(-y_ij z_ij) / B

A loss is a plain sum over pairs, so its gradient is made in the forward, a few rows at a time, in
float64 as in info_nce.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pacl.modeling.kernels.forms import refuse_second_derivative
from pacl.modeling.kernels.info_nce import Collective, iter_chunks


def pairwise_sigmoid(
    compatibility: Tensor,
    scale: Tensor,
    bias: Tensor,
    positives: Tensor,
    left_out: Tensor | None,
    *,
    sum_over_ranks: Collective = lambda own: own,
) -> Tensor:
    """The loss of all rows, of which these may be a share.

    Args:
        compatibility: (I, C), float32 or float64.
        scale: One number, shape ().
        bias: Likewise.
        positives: (I, C) boolean.
        left_out: (I, C) boolean, True for pairs that are not counted, and for no positive; or None.
        sum_over_ranks: Gives the sum over all shares of a tensor's value.

    Returns:
        A scalar >= 0. It can be differentiated once; the gradients are those of these rows.
    """
    inputs = compatibility, scale, bias, positives, left_out
    return _PairwiseSigmoid.apply(*inputs, sum_over_ranks)  # type: ignore[no-any-return]


class _PairwiseSigmoid(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        compatibility: Tensor,
        scale: Tensor,
        bias: Tensor,
        positives: Tensor,
        left_out: Tensor | None,
        sum_over_ranks: Collective,
    ) -> Tensor:
        n_images = sum_over_ranks(torch.tensor(len(compatibility))).clamp(min=1).item()
        total, d_scale, d_bias = torch.zeros(3, dtype=torch.float64, device=scale.device)
        slopes = torch.empty_like(compatibility)
        for part in iter_chunks(compatibility):
            sign = 1 - 2 * positives[part].double()  # -y
            if left_out is not None:
                sign.masked_fill_(left_out[part], 0)
            wrong = (compatibility[part].double() * scale).add_(bias).mul_(sign)
            softplus = F.softplus(wrong)
            if left_out is not None:
                softplus.masked_fill_(left_out[part], 0)
            total += softplus.sum()
            slope = wrong.sigmoid_().mul_(sign)
            d_scale += (slope * compatibility[part]).sum()
            d_bias += slope.sum()
            slopes[part] = slope.mul_(scale / n_images)
        d_scale, d_bias = (each.to(scale.dtype) / n_images for each in (d_scale, d_bias))
        ctx.save_for_backward(compatibility, slopes, d_scale, d_bias)
        return (sum_over_ranks(total) / n_images).to(compatibility.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (*_Scaled.apply(*gradients, *ctx.saved_tensors), None, None, None)  # type: ignore[misc]


class _Scaled(torch.autograd.Function):
    """The backward, as a function of its own: one that refuses to be differentiated."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, _: Tensor, *slopes: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient * slope for slope in slopes)

    backward = staticmethod(refuse_second_derivative)
