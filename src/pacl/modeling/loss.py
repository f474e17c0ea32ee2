"""The losses on the compatibility: in one process, and across processes exactly."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pacl.modeling.kernels.info_nce import fits_one_chunk, info_nce
from pacl.modeling.kernels.sigmoid import pairwise_sigmoid
from pacl.runtime.distributed import rank, stack_ranks, sum_over_ranks, world_size


def contrastive_loss(
    compatibility: Float[Tensor, "images texts"],
    logit_scale: float | Tensor,
    *,
    positives: Bool[Tensor, "images texts"] | None = None,
    left_out: Bool[Tensor, "images texts"] | None = None,
) -> Float[Tensor, ""]:
    """CLIP's symmetric InfoNCE with the compatibility in the place of the cosine (paper, loss).

    Args:
        compatibility: (I, C) in [-1, 1].
        logit_scale: Multiplies the compatibility (CLIP: about 100 at most); a number or a tensor.
        positives: (I, C), True where text j describes image i. None: I = C and text i belongs to
            image i, CLIP's own loss. Else every positive counts equally:

                rows    = mean over images with a positive of -1/|P_i| sum_{j in P_i} log p_i(j)
                columns = the same over texts, with log p_j(i)

            where p_i is the softmax of row i over all texts, p_j that of column j over all images.
        left_out: (I, C), True where a text may well describe an image that it is no positive of:
            no softmax counts such a pair. A positive is never left out. None: every other pair is
            a negative.

    Returns:
        Half the sum of both directions, a scalar >= 0; 0 where there is no positive at all. Of
        more than half a million pairs (on a GPU: 8 million) it can be differentiated only once:
        beside the gradient and the positives no matrix of pairs is then made (see
        kernels/info_nce.py).

    Raises:
        ValueError: `compatibility` is not a matrix (with positives None: not square), or
            `positives` or `left_out` is not a boolean matrix of its shape.
    """
    _check_pairs(compatibility, positives, left_out)
    with torch.autocast(compatibility.device.type, enabled=False):
        dtype = torch.promote_types(compatibility.dtype, torch.float32)
        compatibility = compatibility.to(dtype)
        if positives is None:
            positives = torch.eye(len(compatibility), dtype=torch.bool, device=compatibility.device)
        left_out = None if left_out is None else left_out & ~positives
        if not (torch.compiler.is_compiling() or fits_one_chunk(compatibility)):
            scale = torch.as_tensor(logit_scale, dtype=torch.float64, device=compatibility.device)
            return info_nce(compatibility, scale, positives, left_out=left_out)
        logits = compatibility * logit_scale
        if left_out is not None:
            logits = logits.masked_fill(left_out, torch.finfo(dtype).min)
        return (_cross_entropy(logits, positives) + _cross_entropy(logits.T, positives.T)) / 2


def _cross_entropy(logits: Tensor, positives: Tensor) -> Tensor:
    """Mean over rows with a positive of the mean -log softmax of their positives."""
    n_positives = positives.sum(dim=1)
    log_probability = logits.log_softmax(dim=1).masked_fill(~positives, 0)
    per_row = -log_probability.sum(dim=1) / n_positives.clamp(min=1)
    return per_row.sum() / (n_positives > 0).sum().clamp(min=1)


def _check_pairs(
    compatibility: Tensor, positives: Tensor | None, left_out: Tensor | None = None
) -> None:
    shape = tuple(compatibility.shape)
    if len(shape) != 2:
        raise ValueError(f"compatibility must have shape (images, texts), got {shape}")
    if positives is None and shape[0] != shape[1]:
        raise ValueError(f"compatibility must be square without positives, got {shape}")
    for name, pairs in (("positives", positives), ("left_out", left_out)):
        if pairs is not None and (pairs.dtype != torch.bool or pairs.shape != compatibility.shape):
            raise ValueError(
                f"{name} must be boolean of shape {shape}, "
                f"got {pairs.dtype} of shape {tuple(pairs.shape)}"
            )


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
    left_out: Bool[Tensor, "i C"] | None = None,
) -> Float[Tensor, ""]:
    """``pacl.contrastive_loss`` of the joined batch, of which this rank holds some rows.

    Args:
        compatibility: Of this rank's images with the texts of all ranks, in [-1, 1].
        logit_scale: Multiplies the compatibility.
        positives: True where text j describes this rank's image i. With each image's own caption
            alone, and b images per rank, that is column rank() b + i.
        left_out: See `contrastive_loss`.

    Returns:
        The loss of the joined batch, the same on every rank; its gradient is that for this rank's
        rows. It can be differentiated once.
    """
    with torch.autocast(compatibility.device.type, enabled=False):
        dtype = torch.promote_types(compatibility.dtype, torch.float32)
        return info_nce(
            compatibility.to(dtype),
            torch.as_tensor(logit_scale, dtype=torch.float64, device=compatibility.device),
            positives,
            left_out=None if left_out is None else left_out & ~positives,
            sum_over_ranks=sum_over_ranks,
            stack_ranks=stack_ranks,
        )


def sigmoid_loss(
    compatibility: Float[Tensor, "i C"],
    logit_scale: float | Tensor,
    logit_bias: float | Tensor,
    *,
    positives: Bool[Tensor, "i C"],
    left_out: Bool[Tensor, "i C"] | None = None,
) -> Float[Tensor, ""]:
    """SigLIP's loss (arXiv 2303.15343): each pair of image and text is a yes or a no of its own.

        loss = 1/B sum_ij log(1 + exp(-y_ij (logit scale x compatibility_ij + logit bias)))

    with y_ij 1 for a positive pair and -1 for any other, over the B images of all ranks.

    Args:
        compatibility: Of this rank's images with the texts of all ranks, in [-1, 1].
        logit_scale: Multiplies the compatibility; training starts at 20 (SAIL, arXiv 2412.04616).
        logit_bias: Is added to it, about -10 to start with: nearly all pairs are a no.
        positives: True where text j describes this rank's image i; any number per row.
        left_out: True for pairs that are not counted; a positive always is.

    Returns:
        A scalar >= 0, the same on every rank; its gradient is that for this rank's rows. It can be
        differentiated once, and beside that gradient and the inputs no matrix of pairs is made.

    Raises:
        ValueError: `positives` or `left_out` is not a boolean matrix of the compatibility's shape.
    """
    _check_pairs(compatibility, positives, left_out)
    with torch.autocast(compatibility.device.type, enabled=False):
        dtype = torch.promote_types(compatibility.dtype, torch.float32)
        scale, bias = (
            torch.as_tensor(value, dtype=torch.float64, device=compatibility.device)
            for value in (logit_scale, logit_bias)
        )
        left_out = None if left_out is None else left_out & ~positives
        return pairwise_sigmoid(
            compatibility.to(dtype), scale, bias, positives, left_out, sum_over_ranks=sum_over_ranks
        )


class _GatherRows(torch.autograd.Function):
    """Rows of all ranks; backwards, the sum over ranks of the gradient of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return stack_ranks(rows).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_over_ranks(gradients[0]).chunk(world_size())[rank()]
