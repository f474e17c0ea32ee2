"""PAMR, pixel-adaptive mask refinement: scores spread among neighbours of like colour.

From N. Araslanov, S. Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020.
No training; a post-processing step, whose results are reported with and without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

ITERATIONS = 10
DILATIONS = (1, 2, 4, 8, 12, 24)
SHARPNESS = 0.1
MAX_CHUNK_ELEMENTS = 1 << 20
"""Scores refined at once: 4 MiB of float32, and two copies of them."""
_TINY = 1e-8


def refine_scores(
    scores: Float[Tensor, "C H W"],
    image: Float[Tensor, "3 H W"],
    *,
    iterations: int = ITERATIONS,
    dilations: Sequence[int] = DILATIONS,
) -> Float[Tensor, "C H W"]:
    """Scores of pixels, averaged along like colours.

    The neighbours N(p) of a pixel p are the 8 around it at each dilation d, d pixels away; beyond
    the border the nearest pixel stands in. With x the image and σ_p its standard deviation around
    p, per channel c,

        k(p, q) = mean over c of -|x_p - x_q| / (0.1 σ_p)      q in N(p)
        α(p, ·) = softmax of k(p, ·) over N(p)
        m_p    <- Σ_q α(p, q) m_q                               repeated

    σ_p is the sample deviation over the 3 x 3 values of all dilations, p itself in each.

    Args:
        scores: Probabilities or any other scores, C classes at every pixel.
        image: The image at the same size, in any linear scale: scaling or shifting a channel
            changes nothing.
        iterations: Steps; 0 gives the scores back.
        dilations: Distances of the neighbours, in pixels.

    Returns:
        Refined scores; each is a weighted mean of scores given, so their range is kept.

    Raises:
        ValueError: Image and scores differ in size, or iterations or dilations make no sense.

    The memory taken is that of 8 weights per dilation and pixel, besides the result and two copies
    of a few classes.
    """
    if scores.shape[1:] != image.shape[1:]:
        raise ValueError(
            f"image must have the scores' size, {tuple(scores.shape[1:])}, "
            f"got {tuple(image.shape[1:])}"
        )
    if iterations < 0 or not dilations or min(dilations) < 1:
        raise ValueError(f"no refinement with {iterations} iterations, dilations {dilations}")
    weights = neighbour_weights(image.to(scores.dtype), dilations)
    refined = [_refine(chunk, weights, iterations, dilations) for chunk in _iter_chunks(scores)]
    return torch.cat(refined)


def refine_grid(
    scores: Float[Tensor, "C rows columns"],
    image: Float[Tensor, "3 H W"],
    *,
    iterations: int = ITERATIONS,
    dilations: Sequence[int] = DILATIONS,
) -> Float[Tensor, "C H W"]:
    """Scores of patches, upsampled bilinearly to the image's size and refined there.

    Args:
        scores: On a grid that tiles the image.
        image: What the encoder saw, normalised or not.
        iterations: Steps.
        dilations: Distances of the neighbours, in pixels.

    Classes are taken a few at a time: each is refined by itself, with the same weights. NACLIP's
    authors refine scores as well, before the softmax, but at the image's original size.
    """
    size_px = (image.shape[1], image.shape[2])
    scores = scores.float()
    upsampled = F.interpolate(scores[None], size_px, mode="bilinear", align_corners=False)[0]
    return refine_scores(upsampled, image, iterations=iterations, dilations=dilations)


def _refine(
    scores: Tensor, weights: Tensor, iterations: int, dilations: Sequence[int]
) -> Float[Tensor, "C H W"]:
    for _ in range(iterations):
        refined = torch.zeros_like(scores)
        for index, neighbour in enumerate(_iter_neighbours(scores, dilations)):
            refined.addcmul_(weights[index], neighbour)
        scores = refined
    return scores


def _iter_chunks(scores: Float[Tensor, "C H W"]) -> Iterator[Float[Tensor, "c H W"]]:
    """A few classes at a time: what is held besides the scores stays bounded."""
    n_classes = max(1, MAX_CHUNK_ELEMENTS // (scores.shape[1] * scores.shape[2]))
    yield from scores.split(n_classes)


def neighbour_weights(
    image: Float[Tensor, "3 H W"], dilations: Sequence[int]
) -> Float[Tensor, "neighbours H W"]:
    """α(p, q) for the 8 neighbours at each dilation, in reading order; they sum to 1."""
    # Two passes over the neighbours, so that the 27 or more copies are never held together.
    n_values = 9 * len(dilations)
    mean = image * len(dilations)
    for neighbour in _iter_neighbours(image, dilations):
        mean = mean + neighbour
    mean = mean / n_values
    squares = (image - mean).square() * len(dilations)
    for neighbour in _iter_neighbours(image, dilations):
        squares = squares + (neighbour - mean).square()
    deviation = (squares / (n_values - 1)).sqrt()
    affinities = [
        -((neighbour - image).abs() / (SHARPNESS * deviation + _TINY)).mean(dim=0)
        for neighbour in _iter_neighbours(image, dilations)
    ]
    return torch.stack(affinities).softmax(dim=0)


def _iter_neighbours(
    values: Float[Tensor, "K H W"], dilations: Sequence[int]
) -> Iterator[Float[Tensor, "K H W"]]:
    """The values, moved so that at each pixel stands one of its neighbours."""
    height, width = values.shape[1:]
    for dilation in dilations:
        padded = F.pad(values[None], (dilation,) * 4, mode="replicate")[0]
        for down in range(3):
            for right in range(3):
                if (down, right) != (1, 1):
                    top, left = down * dilation, right * dilation
                    yield padded[:, top : top + height, left : left + width]
