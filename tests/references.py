"""Slow, literal twins of the fast code: loops over one thing at a time, nothing clever.

Each follows its equation as the paper or method.md writes it. Tensors are float64; gradients come
from autograd through the loops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of two vectors; 0, and constant, where one of them is zero."""
    if not a.any() or not b.any():
        return (a.sum() + b.sum()) * 0
    return (a @ b) / (a @ a).sqrt() / (b @ b).sqrt()


def patch_compatibility(
    patch_embeds: Tensor, text_embeds: Tensor, patch_temperature: float | Tensor = 1.0
) -> Tensor:
    """The paper's compatibility function: image by image, text by text, patch by patch."""
    rows = []
    for patches in patch_embeds:
        row = []
        for text in text_embeds:
            exponentials = [(cosine(patch, text) / patch_temperature).exp() for patch in patches]
            total = torch.stack(exponentials).sum()
            pooled = torch.zeros_like(text)
            for patch, exponential in zip(patches, exponentials, strict=True):
                pooled = pooled + exponential / total * patch
            row.append(cosine(pooled, text))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def contrastive_loss(
    compatibility: Tensor, logit_scale: float | Tensor, positives: Tensor
) -> Tensor:
    """Symmetric InfoNCE where each row and column may have none, one or several positives."""

    def one_way(logits: Tensor, positives: Tensor) -> Tensor:
        losses = []
        for row, is_positive in zip(logits, positives, strict=True):
            partition = sum((logit.exp() for logit in row), torch.zeros(()))
            chosen = [logit for logit, yes in zip(row, is_positive, strict=True) if yes]
            if chosen:
                losses.append(-sum((logit.exp() / partition).log() for logit in chosen))
                losses[-1] = losses[-1] / len(chosen)
        return torch.stack(losses).mean()

    logits = compatibility * logit_scale
    return (one_way(logits, positives) + one_way(logits.T, positives.T)) / 2


def smooth_scores(scores: Tensor, patch_tokens: Tensor, share: float) -> Tensor:
    """Smoothing of one image's scores (C, T): patch by patch, pair by pair."""
    mean = sum(patch_tokens, torch.zeros_like(patch_tokens[0])) / len(patch_tokens)
    n_alike, columns = max(1, round(share * len(patch_tokens))), []
    for patch in patch_tokens - mean:
        likeness = [float(cosine(patch, other)) for other in patch_tokens - mean]
        best = sorted(range(len(likeness)), key=lambda k: -likeness[k])[:n_alike]
        columns.append(sum(scores[:, k] for k in best) / len(best))
    return torch.stack(columns, dim=1)


def iou(
    predictions: Sequence[Tensor],
    targets: Sequence[Tensor],
    n_classes: int,
    ignored: Iterable[int],
) -> list[float]:
    """Intersection over union of each class from sets of (image, row, column); nan if absent."""
    ignored = set(ignored)
    true_pixels: dict[int, set[tuple[int, int, int]]] = {c: set() for c in range(n_classes)}
    predicted_pixels: dict[int, set[tuple[int, int, int]]] = {c: set() for c in range(n_classes)}
    for image, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        for y in range(target.shape[0]):
            for x in range(target.shape[1]):
                true, predicted = int(target[y, x]), int(prediction[y, x])
                if true in ignored:
                    continue
                true_pixels[true].add((image, y, x))
                if predicted != -1:
                    predicted_pixels[predicted].add((image, y, x))
    scores = []
    for c in range(n_classes):
        union = true_pixels[c] | predicted_pixels[c]
        is_scored = bool(union) and c not in ignored
        hits = true_pixels[c] & predicted_pixels[c]
        scores.append(len(hits) / len(union) if is_scored else float("nan"))
    return scores


def auroc(scores: Sequence[float], is_positive: Sequence[bool]) -> float:
    """Share of (positive, negative) pairs where the positive scores higher, ties counting half."""
    positive = [s for s, yes in zip(scores, is_positive, strict=True) if yes]
    negative = [s for s, yes in zip(scores, is_positive, strict=True) if not yes]
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return wins / (len(positive) * len(negative))
