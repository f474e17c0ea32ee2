"""Smoothing scores over patches that the frozen encoder finds alike: ours, not the paper's."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

CHUNK = 1 << 22
"""Cosines held at once: 16 MiB of float32."""


def smooth_scores(
    scores: Float[Tensor, "B C T"], patch_tokens: Float[Tensor, "B T E"], *, share: float
) -> Float[Tensor, "B C T"]:
    """Replace each patch's scores by their mean over the most alike patches of its image.

    With z_t the frozen token of patch t, less the mean token of its image and at unit length, and
    N_t the k patches s of the largest z_t · z_s, t itself among them,

        s'_t = 1/k Σ_{s ∈ N_t} s_s,    k = the given share of the T patches, rounded, at least 1

    Nothing is trained and no text is looked at: the encoder decides which patches belong together,
    wherever they lie, so that regions of one texture get one label.

    Args:
        scores: One per name and patch.
        patch_tokens: What the embedder reads, not embedded.
        share: K / T, in (0, 1]. A share, not a number, serves all patch strides and image sizes.

    Returns:
        Means of the scores, so their range is kept.

    The mean token is taken away because all tokens of an image share a large part, which would
    make every pair look alike. Weights by likeness in place of a plain mean were no better, and
    worse on photographs (docs/log.md).
    """
    alike = find_alike(patch_tokens, share=share)
    return average_alike(scores, alike.to(scores.device))


def find_alike(patch_tokens: Float[Tensor, "B T E"], *, share: float) -> Int[Tensor, "B T k"]:
    """Find N_t of `smooth_scores`: the patches of an image that are most alike to each of them."""
    tokens = patch_tokens.float()
    unit = F.normalize(tokens - tokens.mean(dim=1, keepdim=True), dim=-1)
    n_patches = tokens.shape[1]
    n_alike, n_rows = max(1, round(share * n_patches)), max(1, CHUNK // n_patches)
    found = []
    with torch.autocast(tokens.device.type, enabled=False):  # near-equal cosines stay apart
        for z in unit:
            rows = [(some @ z.T).topk(n_alike, dim=1).indices for some in z.split(n_rows)]
            found.append(torch.cat(rows))
    return torch.stack(found)


def average_alike(
    scores: Float[Tensor, "B C T"], alike: Int[Tensor, "B T k"]
) -> Float[Tensor, "B C T"]:
    """Take for each patch the mean of its alike patches' scores."""
    means = [
        F.embedding_bag(places, of_image.mT, mode="mean").mT
        for of_image, places in zip(scores.float(), alike, strict=True)
    ]
    return torch.stack(means)
