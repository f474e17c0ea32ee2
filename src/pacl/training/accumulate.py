"""A step's scores with their gradient: of the whole batch at once, or some images at a time.

Some at a time is exact, not a sum of small batches' losses (GradCache, arXiv 2101.06983): images
and texts are all embedded and scored without a gradient, the loss of all scores is differentiated
as far as the scores, and each part is then computed again with a gradient and takes its own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pacl.training.objectives import Objective

Autocast = Callable[[], AbstractContextManager]


@dataclass(frozen=True)
class Scores:
    """Scores of this process's images with all texts."""

    compatibility: Float[Tensor, "b C"]
    """A loss of these is to be differentiated first."""
    pass_on: Callable[[], None]
    """Call it after that: passes the gradient of the scores on to the parameters."""


def score_batch(
    objective: Objective,
    images: Tensor,
    texts: Sequence[str],
    numbers: np.ndarray,
    *,
    step: int,
    share: slice,
    at_once: int | None,
    autocast: Autocast,
) -> Scores:
    """Score a step's images with its texts.

    Args:
        objective: Encodes and scores.
        images: This process's share of the batch: decoded images, or cached tokens.
        texts: Texts of which `numbers` are those of the step.
        numbers: Text numbers.
        step: Step number from 0.
        share: The rows of the whole batch that `images` holds.
        at_once: Images, and texts of a tower that is trained, whose activations are held at a
            time; None: all.
        autocast: Returns the context to compute in.
    """
    if at_once is None:
        with autocast():
            side = objective.encode_images(images, step, share)
            text_embeds = objective.encode_texts(texts, numbers)
            return Scores(objective.score(side, text_embeds, share), lambda: None)
    starts = range(share.start, share.stop, at_once)
    parts = [slice(start, min(start + at_once, share.stop)) for start in starts]
    n_texts = at_once if objective.trains_texts else len(numbers)
    numbers_of_parts = [numbers[k : k + n_texts] for k in range(0, len(numbers), n_texts)]

    def encode_images(part: slice) -> Tensor:
        own = images[part.start - share.start : part.stop - share.start]
        return objective.encode_images(own, step, part)

    with torch.no_grad(), autocast():
        text_embeds = torch.cat([objective.encode_texts(texts, k) for k in numbers_of_parts])
        sides = [encode_images(part) for part in parts]
        rows = [objective.score(s, text_embeds, p) for s, p in zip(sides, parts, strict=True)]
    compatibility = torch.cat(rows).requires_grad_()
    text_embeds.requires_grad_(objective.trains_texts)
    kept = [None if objective.trains_images else side for side in sides]

    def pass_on() -> None:
        assert compatibility.grad is not None
        gradients = compatibility.grad.split(at_once)
        for side, part, gradient in zip(kept, parts, gradients, strict=True):
            with autocast():
                again = encode_images(part) if side is None else side
                objective.score(again, text_embeds, part).backward(gradient)
        if text_embeds.grad is not None:
            gradients = text_embeds.grad.split(n_texts)
            for of_part, gradient in zip(numbers_of_parts, gradients, strict=True):
                with autocast():
                    objective.encode_texts(texts, of_part).backward(gradient)

    return Scores(compatibility, pass_on)
