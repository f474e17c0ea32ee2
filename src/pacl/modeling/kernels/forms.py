"""What the implementations of the compatibility share: types, unit vectors, choice of a form."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def computing_dtype(patch_embeds: Tensor, text_embeds: Tensor) -> torch.dtype:
    """The larger of both types, float32 at least."""
    dtype = torch.promote_types(patch_embeds.dtype, text_embeds.dtype)
    return torch.promote_types(dtype, torch.float32)


def inverse_norm(vectors: Tensor) -> Tensor:
    """1 / |x| over the last dimension, kept as size 1; 0 for a zero vector, with gradient 0."""
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    is_zero = norm == 0
    return norm.masked_fill(is_zero, 1).reciprocal().masked_fill(is_zero, 0)


def unit_vectors(vectors: Tensor) -> Tensor:
    """Vectors of length 1; zero stays zero."""
    return vectors * inverse_norm(vectors)


def split_lengths(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Directions e (I, T, D), lengths n > 0 (I, T, 1) and "is zero" (I, T, 1) of patches E = n e.

    In these terms a patch's length is a bias log n of its softmax over patches:
    softmax(S / temperature)_t E_t is softmax(S / temperature + log n)_t e_t, but for a factor that
    the compatibility does not know. Float32 gradients need it: with E itself, the rounding of
    long patches drowns the gradients of short ones.
    """
    length = torch.linalg.vector_norm(patches, dim=-1, keepdim=True)
    # A zero patch has no direction, and any length gives it the right gradient, that of the
    # pooling alone.
    is_zero = length == 0
    longest = length.detach().amax(dim=1, keepdim=True)
    length = torch.where(is_zero, longest.masked_fill(longest == 0, 1), length)
    return patches / length, length, is_zero


def largest_logit(logits: Tensor, is_zero: Tensor) -> Tensor:
    """The largest logit of each pair (I, 1, C) among the patches that make up v.

    Zero patches do not: where they had the largest, v might underflow. With this subtracted, their
    logits are to be cut off at max_excess().
    """
    largest = logits.detach().masked_fill(is_zero, -math.inf).amax(dim=1, keepdim=True)
    return largest.masked_fill(largest == -math.inf, 0)


def max_excess(dtype: torch.dtype) -> float:
    """Bound on the logit of a zero patch, whose gradient would exceed 10^19 times the others'."""
    return math.log(torch.finfo(dtype).max) / 2


def is_gram_cheaper(n_patches: int, width: int, *, n_texts: int, is_backward: bool = False) -> bool:
    """Whether |v|^2 costs less from the patches' Gram matrix (T, T) than from v (C, D) itself.

    Compares the multiply-adds of one image that the two forms do not share, over T. Forwards, the
    Gram form never wins at T >= D.
    """
    if is_backward:
        return 2 * n_patches * (width + n_texts) <= 3 * width * n_texts
    return n_patches * (width + n_texts) <= width * n_texts


def refuse_second_derivative(ctx: Any, *_: Tensor) -> None:
    """Stands for the derivative of a backward that has none."""
    raise NotImplementedError(
        "this can be differentiated only once; the compatibility has second derivatives with "
        'implementation="naive", its loss where it has few pairs'
    )
