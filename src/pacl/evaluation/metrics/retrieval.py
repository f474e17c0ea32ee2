"""How often the right caption, or the right image, is among the best of all candidates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

RANKS = (1, 5, 10)


def text_to_image_ranks(
    scores: Float[Tensor, "images texts"], image_of_text: Int[Tensor, " texts"]
) -> Int[Tensor, " texts"]:
    """Rank of each text's own image among all images.

    Args:
        scores: Compatibility of every image with every text.
        image_of_text: The image that each text describes.

    Returns:
        From 0, the best. Images of the same score come before the own one: ties are pessimistic,
        so that a model that scores everything alike retrieves nothing.
    """
    own = scores.gather(0, image_of_text[None])
    return (scores >= own).sum(dim=0) - 1


def image_to_text_ranks(
    scores: Float[Tensor, "images texts"], image_of_text: Int[Tensor, " texts"]
) -> Int[Tensor, " images"]:
    """Rank of the best of each image's own texts among the texts of other images, likewise.

    Args:
        scores: Compatibility of every image with every text.
        image_of_text: The image that each text describes; every image has one text or more.
    """
    is_own = image_of_text == torch.arange(len(scores), device=scores.device)[:, None]
    best = scores.masked_fill(~is_own, -torch.inf).amax(dim=1, keepdim=True)
    return ((scores >= best) & ~is_own).sum(dim=1)


def recalls(ranks: Int[Tensor, " queries"], at: Sequence[int] = RANKS) -> dict[str, float]:
    """Share of the queries whose rank is below each of `at`, in [0, 1], by "R@1" and so on."""
    return {f"R@{k}": (ranks < k).double().mean().item() for k in at}
