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


def pooled_compatibility(
    pooling: str,
    patch_embeds: Tensor,
    text_embeds: Tensor,
    patch_temperature: float | Tensor = 1.0,
    null_similarity: float | Tensor | None = None,
    own_texts: Sequence[int] | None = None,
) -> Tensor:
    """The other poolings, and PACL's with a null token: pair by pair (modeling/pooling.py)."""

    def score(patches: Tensor, text: Tensor, own: Tensor | None) -> Tensor:
        cosines = torch.stack([cosine(patch, text) for patch in patches])
        if pooling == "max":
            return cosines.max()
        if pooling == "mean":
            weights = torch.ones_like(cosines) / len(patches)
        elif pooling == "sparse":
            span = cosines.max() - cosines.min()
            scaled = (cosines - cosines.min()) / span if span > 0 else torch.ones_like(cosines)
            kept = torch.stack([s if s >= 1 / len(patches) else s * 0 for s in scaled])
            weights = kept / kept.sum()
        else:
            if own is not None:
                cosines = torch.stack([cosine(patch, own) for patch in patches])
            exponentials = (cosines / patch_temperature).exp()
            weights = exponentials / exponentials.sum()
        pooled = sum((w * patch for w, patch in zip(weights, patches, strict=True)), text * 0)
        value = cosine(pooled, text)
        if null_similarity is not None:
            mass = (cosines / patch_temperature).exp().sum()
            null_mass = len(patches) * (torch.as_tensor(null_similarity) / patch_temperature).exp()
            value = value * (1 - null_mass / (mass + null_mass))
        return value

    rows = []
    for image, patches in enumerate(patch_embeds):
        own = None if own_texts is None else text_embeds[own_texts[image]]
        rows.append(torch.stack([score(patches, text, own) for text in text_embeds]))
    return torch.stack(rows)


def sigmoid_loss(
    compatibility: Tensor,
    logit_scale: float | Tensor,
    bias: float | Tensor,
    positives: Tensor,
    left_out: Tensor | None = None,
) -> Tensor:
    """SigLIP's loss: every pair is a question of yes or no; divided by the number of images."""
    total = torch.zeros((), dtype=compatibility.dtype)
    n_images, n_texts = compatibility.shape
    for i in range(n_images):
        for j in range(n_texts):
            if left_out is not None and left_out[i, j] and not positives[i, j]:
                continue
            logit = logit_scale * compatibility[i, j] + bias
            sign = 1 if positives[i, j] else -1
            total = total - (1 / (1 + (-sign * logit).exp())).log()
    return total / n_images


def contrastive_loss(
    compatibility: Tensor,
    logit_scale: float | Tensor,
    positives: Tensor,
    left_out: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE where each row and column may have none, one or several positives.

    Pairs that are left out are no negatives: they are missing from every sum.
    """

    def one_way(logits: Tensor, positives: Tensor, is_in: Tensor) -> Tensor:
        losses = []
        for row, is_positive, in_row in zip(logits, positives, is_in, strict=True):
            terms = [logit.exp() for logit, yes in zip(row, in_row, strict=True) if yes]
            partition = sum(terms, torch.zeros(()))
            chosen = [logit for logit, yes in zip(row, is_positive, strict=True) if yes]
            if chosen:
                losses.append(-sum((logit.exp() / partition).log() for logit in chosen))
                losses[-1] = losses[-1] / len(chosen)
        return torch.stack(losses).mean()

    logits = compatibility * logit_scale
    is_in = torch.ones_like(positives) if left_out is None else positives | ~left_out
    return (one_way(logits, positives, is_in) + one_way(logits.T, positives.T, is_in.T)) / 2


def smooth_scores(scores: Tensor, patch_tokens: Tensor, share: float) -> Tensor:
    """Smoothing of one image's scores (C, T): patch by patch, pair by pair."""
    mean = sum(patch_tokens, torch.zeros_like(patch_tokens[0])) / len(patch_tokens)
    n_alike, columns = max(1, round(share * len(patch_tokens))), []
    for patch in patch_tokens - mean:
        likeness = [float(cosine(patch, other)) for other in patch_tokens - mean]
        best = sorted(range(len(likeness)), key=lambda k: -likeness[k])[:n_alike]
        columns.append(sum(scores[:, k] for k in best) / len(best))
    return torch.stack(columns, dim=1)


def proxy_mixture(values: Sequence[Tensor], features: Sequence[Tensor]) -> list[Tensor]:
    """ProxyCLIP's attention: each patch's mixture of the values of the patches it is like."""
    table = [[cosine(one, other) for other in features] for one in features]
    mean = sum(sum(row) for row in table) / len(features) ** 2
    mixed = []
    for row in table:
        kept = {k: 3.0 * (c - 1.2 * mean) for k, c in enumerate(row) if c - 1.2 * mean >= 0}
        total = sum(a.exp() for a in kept.values())
        mixed.append(sum(a.exp() / total * values[k] for k, a in kept.items()))
    return mixed


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


def iou_by_size(
    predictions: Sequence[Tensor],
    targets: Sequence[Tensor],
    n_classes: int,
    ignored: Iterable[int],
) -> list[list[float]]:
    """IoU of each class in small, medium and large components, by flooding; nan where none are."""
    ignored = set(ignored)
    pixels = [[0] * n_classes for _ in range(3)]
    hits = [[0] * n_classes for _ in range(3)]
    n_false = [0] * n_classes
    for prediction, target in zip(predictions, targets, strict=True):
        height, width = target.shape
        left = {(y, x) for y in range(height) for x in range(width)}
        for y, x in left:
            true, predicted = int(target[y, x]), int(prediction[y, x])
            if true not in ignored and predicted not in (-1, true):
                n_false[predicted] += 1
        while left:
            component, todo = set(), [left.pop()]
            while todo:
                y, x = todo.pop()
                component.add((y, x))
                for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                    if near in left and target[near] == target[y, x]:
                        left.remove(near)
                        todo.append(near)
            true, share = int(target[y, x]), len(component) / (height * width)
            if true in ignored:
                continue
            size = 0 if share < 1 / 300 else 1 if share < 3 / 100 else 2
            pixels[size][true] += len(component)
            hits[size][true] += sum(int(prediction[place]) == true for place in component)
    table = []
    for size in range(3):
        row = []
        for c in range(n_classes):
            n_true = sum(pixels[s][c] for s in range(3))
            if pixels[size][c]:
                charged = n_false[c] * pixels[size][c] / n_true
                row.append(hits[size][c] / (pixels[size][c] + charged))
            else:
                row.append(float("nan"))
        table.append(row)
    return table


def auroc(scores: Sequence[float], is_positive: Sequence[bool]) -> float:
    """Share of (positive, negative) pairs where the positive scores higher, ties counting half."""
    positive = [s for s, yes in zip(scores, is_positive, strict=True) if yes]
    negative = [s for s, yes in zip(scores, is_positive, strict=True) if not yes]
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return wins / (len(positive) * len(negative))
