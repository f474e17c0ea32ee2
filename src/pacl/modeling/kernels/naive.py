"""The compatibility in plain torch operations, differentiated by autograd.

It holds several tensors (I, T, C) for its backward, which is what the other implementations avoid.
Sizes, letters and equations are those of compatibility.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pacl.modeling.kernels.forms import (
    computing_dtype,
    is_gram_cheaper,
    largest_logit,
    max_excess,
    split_lengths,
    unit_vectors,
)


def naive_compatibility(patch_embeds: Tensor, text_embeds: Tensor, temperature: Tensor) -> Tensor:
    """The compatibility of every image with every text.

    Args:
        patch_embeds: RAW patch embeddings (I, T, D), of any floating type.
        text_embeds: Text embeddings (C, D), of any length and floating type.
        temperature: One number, shape ().

    Returns:
        (I, C) in [-1, 1], float32 or float64, differentiable any number of times.
    """
    dtype = computing_dtype(patch_embeds, text_embeds)
    unit_patches, length, is_zero = split_lengths(patch_embeds.to(dtype))
    unit_texts = unit_vectors(text_embeds.to(dtype))
    similarity = unit_patches @ unit_texts.T
    logits = similarity / temperature.to(dtype) + length.log()
    excess = logits - largest_logit(logits, is_zero)
    weights = excess.clamp(max=max_excess(dtype)).exp()  # no sum: v may have any scale
    return pooled_cosine(weights, similarity, unit_patches)


def pooled_cosine(weights: Tensor, similarity: Tensor, unit_patches: Tensor) -> Tensor:
    """The cosine (I, C) of each text with its pooled vector, the weighted sum of unit patches.

    Args:
        weights: (I, T, C), not negative, of any sum.
        similarity: Cosines of patches and texts (I, T, C).
        unit_patches: (I, T, D), zero where a patch is.
    """
    along_text = (weights * similarity).sum(dim=1)
    if is_gram_cheaper(*unit_patches.shape[1:], n_texts=weights.shape[2]):
        squared_norm = _squared_norm_gram(weights, unit_patches)
    else:
        squared_norm = _squared_norm_explicit(weights, unit_patches)
    # v.v >= (v.u)^2 since |u| = 1. Rounding may break it where the pooled patches nearly cancel.
    squared_norm = torch.maximum(squared_norm, along_text.square())
    is_zero = squared_norm == 0
    return (along_text * squared_norm.masked_fill(is_zero, 1).rsqrt()).masked_fill(is_zero, 0)


def _squared_norm_gram(weights: Tensor, patches: Tensor) -> Tensor:
    """|v_ij|^2 = A_ij' G_i A_ij with the Gram matrix G_i = E_i E_i' (T, T): v is never formed."""
    gram = patches @ patches.mT
    return (weights * (gram @ weights)).sum(dim=1)


def _squared_norm_explicit(weights: Tensor, patches: Tensor) -> Tensor:
    """|v_ij|^2 from the pooled vectors v (I, C, D) themselves."""
    return (weights.mT @ patches).square().sum(dim=-1)
