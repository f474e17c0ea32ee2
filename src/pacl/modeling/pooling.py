"""PACL's pooling beside those it is measured against, and a null token for its softmax.

With the cosines s_t = E_t . u / |E_t| of an image's patches with a text (letters as in
compatibility.py), the score of image and text is

    pacl         cos(sum_t softmax_t(s / temperature) E_t, u)   the paper's
    mean         cos(mean_t E_t, u)                             CLIP's, on patches
    max          max_t s_t                                      FILIP's (arXiv 2111.07783)
    sparse       cos(sum_t w_t E_t, u)                          SPARC's weights (arXiv 2401.09865)
    own-caption  cos(sum_t softmax_t(s' / temperature) E_t, u)  ANOTHER OBJECTIVE than the paper's

where w is s, scaled to [0, 1] over the patches of the image, set to 0 below 1 / T and divided by
its sum; and s' are the cosines with the image's own caption, whatever the text it is compared with.

A null token takes part in pacl's softmax with a cosine b of its own and the value zero: mass that
it takes lowers the score of a text that no patch fits (FLAIR's idea, arXiv 2412.03561). A cosine
does not see the length of a pooled vector, so the mass that is left is made a factor:

    score = (1 - a_0) cos(v, u)     1 - a_0 = M / (M + exp(b / temperature))
    M     = mean_t exp(s_t / temperature)

The mean, where a single zero token would take the sum, makes the null token weigh as much beside 64
patches as beside the thousands of a fine grid.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pacl.modeling.compatibility import (
    check_embeds,
    check_finite,
    check_temperature,
    patch_compatibility,
)
from pacl.modeling.kernels.forms import (
    computing_dtype,
    inverse_norm,
    split_lengths,
    unit_vectors,
)
from pacl.modeling.kernels.naive import pooled_cosine

Pooling = Literal["pacl", "mean", "max", "sparse", "own-caption"]

AT_ONCE = 2**26
"""Cosines (image, patch, text) held at once; beyond it they are computed again in the backward."""


def pooled_compatibility(
    patch_embeds: Float[Tensor, "images patches width"],
    text_embeds: Float[Tensor, "texts width"],
    *,
    pooling: Pooling = "pacl",
    patch_temperature: float | Tensor = 1.0,
    null_similarity: float | Tensor | None = None,
    own_texts: Int64[Tensor, " images"] | None = None,
) -> Float[Tensor, "images texts"]:
    """Score every image with every text by one of the poolings above.

    Args:
        patch_embeds: RAW patch embeddings (I, T, D).
        text_embeds: Text embeddings (C, D), of any length.
        pooling: "pacl" is `patch_compatibility`, by the same kernels.
        patch_temperature: Above 0; mean, max and sparse have none and ignore it.
        null_similarity: The null token's cosine b with every text, which may be learned: a number,
            or a tensor of shape (). None: no null token. Of pacl only.
        own_texts: Of own-caption only: which of the texts is each image's own.

    Returns:
        (I, C) in [-1, 1], float32, or float64 where an input is.

    Raises:
        ValueError: As `patch_compatibility`; or an argument is not of this pooling.
        NotFiniteError: An argument holds nan or infinity; a ValueError too.
    """
    if pooling != "pacl" and null_similarity is not None:
        raise ValueError(f"a null token belongs to the softmax of pacl, not to {pooling}")
    if (pooling == "own-caption") != (own_texts is not None):
        raise ValueError(f"own_texts belongs to own-caption, pooling is {pooling}")
    if pooling == "pacl" and null_similarity is None:
        return patch_compatibility(patch_embeds, text_embeds, patch_temperature=patch_temperature)
    check_embeds(patch_embeds, text_embeds)
    check_temperature(patch_temperature)
    dtype = computing_dtype(patch_embeds, text_embeds)
    with torch.autocast(patch_embeds.device.type, enabled=False):
        patches, unit_texts = patch_embeds.to(dtype), unit_vectors(text_embeds.to(dtype))
        if null_similarity is not None:
            share = partial(_patch_share, temperature=patch_temperature, null=null_similarity)
            left = _in_chunks(share, patches, unit_texts)
            score = left * patch_compatibility(
                patch_embeds, text_embeds, patch_temperature=patch_temperature
            )
        elif own_texts is not None:
            own = unit_texts.index_select(0, own_texts.to(unit_texts.device))
            score = _pooled_for_own(patches, own, unit_texts, patch_temperature)
        elif pooling == "mean":
            score = unit_vectors(patches.mean(dim=1)) @ unit_texts.T
        else:
            score = _in_chunks(_BY_COSINES[pooling], patches, unit_texts)
    check_finite(score, patch_embeds, text_embeds)
    return score


def _cosines(patches: Tensor, unit_texts: Tensor) -> Tensor:
    """The cosines s (I, T, C)."""
    return (patches @ unit_texts.T) * inverse_norm(patches)


def _patch_share(
    patches: Tensor, unit_texts: Tensor, *, temperature: float | Tensor, null: float | Tensor
) -> Tensor:
    """The mass 1 - a_0 that the null token leaves to the patches (I, C)."""
    similarity = _cosines(patches, unit_texts)
    log_mean = (similarity / temperature).logsumexp(dim=1) - math.log(patches.shape[1])
    return (log_mean - null / temperature).sigmoid()


def _pooled_for_own(
    patches: Tensor, own: Tensor, unit_texts: Tensor, temperature: float | Tensor
) -> Tensor:
    similarity = torch.linalg.vecdot(patches, own[:, None]) * inverse_norm(patches)[..., 0]
    weights = (similarity / temperature).softmax(dim=1)
    return unit_vectors((weights[:, None] @ patches)[:, 0]) @ unit_texts.T


def _best_patch(patches: Tensor, unit_texts: Tensor) -> Tensor:
    return _cosines(patches, unit_texts).amax(dim=1)


def _sparsely_pooled(patches: Tensor, unit_texts: Tensor) -> Tensor:
    unit_patches, length, _ = split_lengths(patches)
    similarity = unit_patches @ unit_texts.T
    lowest, highest = similarity.amin(dim=1, keepdim=True), similarity.amax(dim=1, keepdim=True)
    is_flat = highest == lowest
    scaled = (similarity - lowest) / (highest - lowest).masked_fill(is_flat, 1)
    weights = scaled.masked_fill(scaled < 1 / patches.shape[1], 0).masked_fill(is_flat, 1)
    longest = length.detach().amax(dim=1, keepdim=True)
    return pooled_cosine(weights * (length / longest), similarity, unit_patches)


_BY_COSINES = {"max": _best_patch, "sparse": _sparsely_pooled}


def _in_chunks(
    score: Callable[[Tensor, Tensor], Tensor], patches: Tensor, unit_texts: Tensor
) -> Tensor:
    """Score images in chunks, whose cosines are computed again in the backward."""
    n_at_once = max(1, AT_ONCE // max(1, patches.shape[1] * len(unit_texts)))
    if torch.compiler.is_compiling() or len(patches) <= n_at_once:
        return score(patches, unit_texts)
    again = partial(checkpoint, score, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([again(chunk, unit_texts) for chunk in patches.split(n_at_once)])
