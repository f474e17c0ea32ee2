"""The compatibility of images with texts, and the contrastive loss on it: the paper's equations.

Dimension letters, here and everywhere in the package:

    B  batch                     E  width of the frozen vision encoder
    I  images                    D  width of the joint space of patches and texts
    C  classes or captions       T  patches of one image (rows x columns, row-major)
    H, W  height and width in pixels

For image i and text j, with raw patch embeddings E_it and the unit text embedding u_j:

    R_itj = E_it . u_j                  S = R / |E_it|                the cosine of every patch
    A     = softmax_t(S / temperature)  v_ij = sum_t A_itj E_it       the patches pooled FOR text j
    compatibility_ij = v_ij . u_j / |v_ij|

The weights A belong to the pair: each image is pooled anew for every text. Inside this file tensors
over (image, patch, text) lie in the order (I, T, C), since R is then one plain matrix product.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def patch_similarity(
    patch_embeds: Float[Tensor, "images patches width"],
    text_embeds: Float[Tensor, "texts width"],
) -> Float[Tensor, "images texts patches"]:
    """Cosine of every patch with every text: s_t of the paper's compatibility function.

    Args:
        patch_embeds: Patch embeddings (I, T, D), of any length.
        text_embeds: Text embeddings (C, D), of any length: they are divided by it here.

    Returns:
        (I, C, T) in [-1, 1], float32, or float64 where an input is. A zero vector has cosine 0
        with everything.

    Raises:
        ValueError: The shapes do not fit, or an argument is not floating point.
    """
    _check_embeds(patch_embeds, text_embeds)
    with torch.autocast(patch_embeds.device.type, enabled=False):
        patches, unit_texts = _prepare(patch_embeds, text_embeds)
        similarity = (patches @ unit_texts.T) * _inverse_norm(patches)
        return similarity.clamp(-1, 1).mT


def patch_compatibility(
    patch_embeds: Float[Tensor, "images patches width"],
    text_embeds: Float[Tensor, "texts width"],
    *,
    patch_temperature: float | Tensor = 1.0,
) -> Float[Tensor, "images texts"]:
    """PACL's compatibility of every image with every text (the paper's compatibility function).

    Args:
        patch_embeds: RAW patch embeddings (I, T, D). Their lengths matter: a long patch weighs
            more in the pooled vector.
        text_embeds: Text embeddings (C, D), of any length: they are divided by it here.
        patch_temperature: Divides the cosines before the softmax over patches; a number above 0,
            or a tensor of shape (), which may be learned. The paper has none, that is 1.

    Returns:
        (I, C), a cosine in [-1, 1], float32, or float64 where an input is. A zero patch has
        cosine 0; an image whose pooled vector is zero has compatibility 0.

    Raises:
        ValueError: The shapes do not fit, an argument is not floating point, or
            patch_temperature is not a finite number above 0.

    The result is computed in float32 at least, also under autocast: cosines rounded to bfloat16
    cost the gradient two digits.
    """
    _check_embeds(patch_embeds, text_embeds)
    _check_temperature(patch_temperature)
    with torch.autocast(patch_embeds.device.type, enabled=False):
        patches, unit_texts = _prepare(patch_embeds, text_embeds)
        return _eager_compatibility(patches, unit_texts, patch_temperature)


def contrastive_loss(
    compatibility: Float[Tensor, "images texts"],
    logit_scale: float | Tensor,
    *,
    positives: Bool[Tensor, "images texts"] | None = None,
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

    Returns:
        Half the sum of both directions, a scalar >= 0; 0 where there is no positive at all.

    Raises:
        ValueError: compatibility is not a matrix (with positives None: not square), or positives
            is not a boolean matrix of its shape.
    """
    _check_positives(compatibility, positives)
    with torch.autocast(compatibility.device.type, enabled=False):
        dtype = torch.promote_types(compatibility.dtype, torch.float32)
        logits = compatibility.to(dtype) * logit_scale
        if positives is None:
            positives = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        return (_cross_entropy(logits, positives) + _cross_entropy(logits.T, positives.T)) / 2


def _cross_entropy(logits: Tensor, positives: Tensor) -> Tensor:
    """Mean over rows with a positive of the mean -log softmax of their positives."""
    n_positives = positives.sum(dim=1)
    log_probability = logits.log_softmax(dim=1).masked_fill(~positives, 0)
    per_row = -log_probability.sum(dim=1) / n_positives.clamp(min=1)
    return per_row.sum() / (n_positives > 0).sum().clamp(min=1)


def _eager_compatibility(
    patches: Tensor, unit_texts: Tensor, patch_temperature: float | Tensor
) -> Tensor:
    """Plain torch operations, differentiated by autograd."""
    dots = patches @ unit_texts.T
    weights = (dots * (_inverse_norm(patches) / patch_temperature)).softmax(dim=1)
    along_text = (weights * dots).sum(dim=1)
    if _is_gram_cheaper(*patches.shape[1:], n_texts=len(unit_texts)):
        squared_norm = _squared_norm_gram(weights, patches)
    else:
        squared_norm = _squared_norm_explicit(weights, patches)
    # v.v >= (v.u)^2 since |u| = 1. Rounding may break it where the pooled patches nearly cancel.
    squared_norm = torch.maximum(squared_norm, along_text.square())
    is_zero = squared_norm == 0
    return (along_text * squared_norm.masked_fill(is_zero, 1).rsqrt()).masked_fill(is_zero, 0)


def _is_gram_cheaper(n_patches: int, width: int, *, n_texts: int) -> bool:
    """Compare the multiply-adds of both forms, per image; the Gram form never wins at T >= D."""
    gram = n_patches * n_patches * (width + n_texts)
    explicit = n_patches * width * n_texts
    return gram <= explicit


def _squared_norm_gram(weights: Tensor, patches: Tensor) -> Tensor:
    """|v_ij|^2 = A_ij' G_i A_ij with the Gram matrix G_i = E_i E_i' (T, T): v is never formed."""
    gram = patches @ patches.mT
    return (weights * (gram @ weights)).sum(dim=1)


def _squared_norm_explicit(weights: Tensor, patches: Tensor) -> Tensor:
    """|v_ij|^2 from the pooled vectors v (I, C, D) themselves."""
    return (weights.mT @ patches).square().sum(dim=-1)


def _prepare(patch_embeds: Tensor, text_embeds: Tensor) -> tuple[Tensor, Tensor]:
    """Bring both to one dtype, float32 at least, and the texts to unit length."""
    dtype = torch.promote_types(patch_embeds.dtype, text_embeds.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    texts = text_embeds.to(dtype)
    return patch_embeds.to(dtype), texts * _inverse_norm(texts)


def _inverse_norm(vectors: Tensor) -> Tensor:
    """1 / |x| over the last dimension, kept as size 1; 0 for a zero vector, with gradient 0."""
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    is_zero = norm == 0
    return norm.masked_fill(is_zero, 1).reciprocal().masked_fill(is_zero, 0)


def _check_embeds(patch_embeds: Tensor, text_embeds: Tensor) -> None:
    for name, value, shape in (
        ("patch_embeds", patch_embeds, "(images, patches, width)"),
        ("text_embeds", text_embeds, "(texts, width)"),
    ):
        if value.ndim != shape.count(",") + 1:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
        if not value.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {value.dtype}")
    if patch_embeds.shape[-1] != text_embeds.shape[-1]:
        raise ValueError(
            f"text_embeds must have the width of patch_embeds, {patch_embeds.shape[-1]}, "
            f"got {text_embeds.shape[-1]}"
        )
    if patch_embeds.shape[1] == 0:
        raise ValueError(f"patch_embeds has no patches: shape {tuple(patch_embeds.shape)}")


def _check_temperature(patch_temperature: float | Tensor) -> None:
    if isinstance(patch_temperature, Tensor):
        if patch_temperature.ndim > 0:
            shape = tuple(patch_temperature.shape)
            raise ValueError(f"patch_temperature must be one number, got a tensor {shape}")
        value = patch_temperature.item()
    else:
        value = patch_temperature
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"patch_temperature must be a finite number above 0, got {value}")


def _check_positives(compatibility: Tensor, positives: Tensor | None) -> None:
    shape = tuple(compatibility.shape)
    if len(shape) != 2:
        raise ValueError(f"compatibility must have shape (images, texts), got {shape}")
    if positives is None:
        if shape[0] != shape[1]:
            raise ValueError(f"compatibility must be square without positives, got {shape}")
    elif positives.dtype != torch.bool or positives.shape != compatibility.shape:
        raise ValueError(
            f"positives must be boolean of shape {shape}, "
            f"got {positives.dtype} of shape {tuple(positives.shape)}"
        )
