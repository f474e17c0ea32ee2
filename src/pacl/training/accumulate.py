"""A step's scores with their gradient: of the whole batch at once, or some images at a time.

Some at a time is exact, not a sum of small batches' losses (GradCache, arXiv 2101.06983): images
and texts are all embedded and scored without a gradient, the loss of all scores is differentiated
as far as the scores, and each part is then computed again with a gradient and takes its own rows.

Parts begin at fixed rows of the whole batch and stay on one process (but for a batch of fewer
parts than processes), and what they add to a parameter's gradient is summed in float64. So float32
weights hardly ever show how many processes share a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pacl.runtime.distributed import sum_gradients, sum_in_place
from pacl.training.objectives import Objective

Autocast = Callable[[], AbstractContextManager]


@dataclass(frozen=True)
class Scores:
    """Scores of this process's images with all texts."""

    compatibility: Float[Tensor, "b C"]
    """A loss of these is to be differentiated first."""
    pass_on: Callable[[Iterable[nn.Parameter]], None]
    """Call it after that: passes the gradient of the scores on to the parameters, and adds theirs
    up over all processes."""


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
            return Scores(objective.score(side, text_embeds, share), sum_gradients)
    starts = range(share.start, share.stop, at_once)
    parts = [slice(start, min(start + at_once, share.stop)) for start in starts]

    def encode_images(part: slice) -> Tensor:
        own = images[part.start - share.start : part.stop - share.start]
        return objective.encode_images(own, step, part)

    return _score_in_parts(
        objective, encode_images, texts, numbers, parts=parts, at_once=at_once, autocast=autocast
    )


def _score_in_parts(
    objective: Objective,
    encode_images: Callable[[slice], Tensor],
    texts: Sequence[str],
    numbers: np.ndarray,
    *,
    parts: Sequence[slice],
    at_once: int,
    autocast: Autocast,
) -> Scores:
    """Score parts of a batch; `encode_images` encodes one of them."""
    n_texts = at_once if objective.trains_texts else len(numbers)
    numbers_of_parts = [numbers[k : k + n_texts] for k in range(0, len(numbers), n_texts)]
    with torch.no_grad(), autocast():
        text_embeds = torch.cat([objective.encode_texts(texts, k) for k in numbers_of_parts])
        sides = [encode_images(part) for part in parts]
        rows = [objective.score(s, text_embeds, p) for s, p in zip(sides, parts, strict=True)]
    compatibility = torch.cat(rows).requires_grad_()
    text_embeds.requires_grad_(objective.trains_texts)
    kept = [None if objective.trains_images else side for side in sides]

    def pass_on(parameters: Iterable[nn.Parameter]) -> None:
        assert compatibility.grad is not None
        sums = _Sums(parameters)
        gradients = compatibility.grad.split(at_once)
        for side, part, gradient in zip(kept, parts, gradients, strict=True):
            with autocast():
                again = encode_images(part) if side is None else side
                objective.score(again, text_embeds, part).backward(gradient)
            sums.add_gradients()
        if text_embeds.grad is not None:
            gradients = text_embeds.grad.split(n_texts)
            for of_part, gradient in zip(numbers_of_parts, gradients, strict=True):
                with autocast():
                    objective.encode_texts(texts, of_part).backward(gradient)
                sums.add_gradients()
        sums.write()

    return Scores(compatibility, pass_on)


class _Sums:
    """The gradients of parameters, added up in float64."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._sums: dict[nn.Parameter, Tensor] = {}
        self.add_gradients()

    def add_gradients(self) -> None:
        """Take every parameter's gradient away from it and add it to the others."""
        for parameter in self._parameters:
            gradient, parameter.grad = parameter.grad, None
            if gradient is not None and parameter in self._sums:
                self._sums[parameter] += gradient
            elif gradient is not None:
                self._sums[parameter] = gradient.double()

    def write(self) -> None:
        """Give every parameter the sum over all parts and processes."""
        sum_in_place(list(self._sums.values()))
        for parameter in list(self._sums):
            parameter.grad = self._sums.pop(parameter).to(parameter.dtype)
