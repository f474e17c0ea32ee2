"""Semantic coherence: whether the cosine of two patch tokens predicts that they show one class.

A property of the encoder (method.md, section 5): where it is near chance, nothing can be aligned.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor
from torch.nn import functional

_PAIRS_AT_ONCE = 65_536


@dataclass(frozen=True, eq=False)
class Coherence:
    """A ROC curve of "same class?" and the area below it."""

    auroc: float
    """In [0, 1], 0.5 at chance; nan where all pairs are alike."""
    fpr: Float[Tensor, " points"]
    """False positive rate, float64, from 0 to 1."""
    tpr: Float[Tensor, " points"]
    """True positive rate, float64, from 0 to 1."""


@dataclass(frozen=True, eq=False)
class TokenPairs:
    """Pairs of different tokens, their cosines, and whether both are of one class."""

    first: Int[Tensor, " pairs"]
    """Number of a token."""
    second: Int[Tensor, " pairs"]
    """Number of another."""
    cosines: Float[Tensor, " pairs"]
    is_same: Bool[Tensor, " pairs"]


def semantic_coherence(
    tokens: Float[Tensor, "tokens width"],
    labels: Integer[Tensor, " tokens"],
    *,
    n_pairs: int,
    seed: int,
) -> Coherence:
    """How well the cosine of two patch tokens predicts "same class" (paper, semantic coherence).

    Arguments and errors as for compare_pairs.

    Returns:
        The area and its curve, one point per distinct cosine.
    """
    pairs = compare_pairs(tokens, labels, n_pairs=n_pairs, seed=seed)
    fpr, tpr, auroc = roc_curve(pairs.cosines, pairs.is_same)
    return Coherence(auroc=auroc, fpr=fpr, tpr=tpr)


def compare_pairs(
    tokens: Float[Tensor, "tokens width"],
    labels: Integer[Tensor, " tokens"],
    *,
    n_pairs: int,
    seed: int,
) -> TokenPairs:
    """Draw pairs of tokens and compare them.

    Args:
        tokens: (N, E) frozen patch tokens, from any images.
        labels: (N,) their classes, without unlabelled patches.
        n_pairs: Pairs of different tokens to draw; all pairs are taken, once each, where there
            are no more than that.
        seed: Seeds the draw, which depends on N, n_pairs and seed alone.

    Raises:
        ValueError: The shapes do not fit, there are fewer than two tokens, or n_pairs is below 1.
    """
    if tokens.ndim != 2 or len(tokens) < 2:
        raise ValueError(f"tokens must be 2 or more, (N, E), got shape {tuple(tokens.shape)}")
    if labels.shape != tokens.shape[:1]:
        raise ValueError(f"labels must be {len(tokens)}, one per token, got {tuple(labels.shape)}")
    if n_pairs < 1:
        raise ValueError(f"n_pairs must be at least 1, got {n_pairs}")
    first, second = _draw_pairs(len(tokens), n_pairs, seed)
    first, second, labels = (x.to(tokens.device) for x in (first, second, labels))
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    unit_tokens = functional.normalize(tokens.to(dtype), dim=-1)
    parts = zip(first.split(_PAIRS_AT_ONCE), second.split(_PAIRS_AT_ONCE), strict=True)
    cosines = torch.cat([(unit_tokens[a] * unit_tokens[b]).sum(dim=-1) for a, b in parts])
    return TokenPairs(first, second, cosines, labels[first] == labels[second])


def roc_curve(
    scores: Float[Tensor, " pairs"], is_positive: Bool[Tensor, " pairs"]
) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"], float]:
    """ROC curve of scores that should be high where is_positive, and the exact area below it.

    Returns:
        (fpr, tpr, auroc): the curve in float64 from (0, 0) to (1, 1), one point per distinct
        score; the area equals the share of (positive, negative) pairs in the right order, ties
        counting half. The area and the rate of a kind that is missing are nan.
    """
    distinct, group = scores.unique(return_inverse=True)
    n_groups = len(distinct)
    n_true = torch.bincount(group[is_positive], minlength=n_groups).flip(0).cumsum(0)
    n_false = torch.bincount(group[~is_positive], minlength=n_groups).flip(0).cumsum(0)
    n_true, n_false = functional.pad(n_true, (1, 0)), functional.pad(n_false, (1, 0))
    # Twice the area in whole numbers, so that it is exact at any count of pairs.
    twice_area = (n_false.diff() * (n_true[1:] + n_true[:-1])).sum()
    auroc = twice_area.double() / (2 * n_true[-1] * n_false[-1])
    return n_false.double() / n_false[-1], n_true.double() / n_true[-1], auroc.item()


def _draw_pairs(n_tokens: int, n_pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of two different tokens per pair; all pairs, once each, where there are as few."""
    if n_tokens * (n_tokens - 1) // 2 <= n_pairs:
        first, second = torch.triu_indices(n_tokens, n_tokens, offset=1)
        return first, second
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(n_tokens, (n_pairs,), generator=generator)
    step = torch.randint(1, n_tokens, (n_pairs,), generator=generator)
    return first, (first + step) % n_tokens
