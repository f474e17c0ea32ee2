from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pacl.inference import pamr
from pacl.inference.pamr import neighbour_weights, refine_grid, refine_scores


def literal_step(scores: Tensor, image: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """One iteration, pixel by pixel, with lists and the equations of the docstring."""
    n_classes, height, width = scores.shape
    refined = torch.zeros_like(scores)
    for y in range(height):
        for x in range(width):
            around = [
                (min(max(y + d * dy, 0), height - 1), min(max(x + d * dx, 0), width - 1), dy, dx)
                for d in dilations
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
            ]
            sigma = [
                statistics.stdev([image[c, v, u].item() for v, u, _, _ in around]) for c in range(3)
            ]
            neighbours = [(v, u) for v, u, dy, dx in around if (dy, dx) != (0, 0)]
            affinities = [
                sum(
                    -abs(image[c, y, x].item() - image[c, v, u].item()) / (0.1 * sigma[c] + 1e-8)
                    for c in range(3)
                )
                / 3
                for v, u in neighbours
            ]
            total = sum(math.exp(each) for each in affinities)
            for k in range(n_classes):
                refined[k, y, x] = sum(
                    math.exp(affinity) / total * scores[k, v, u].item()
                    for affinity, (v, u) in zip(affinities, neighbours, strict=True)
                )
    return refined


@pytest.mark.parametrize("dilations", [(1,), (1, 2), (3, 9)])
def test_equals_the_literal_equations(dilations: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 6, 7, generator=generator, dtype=torch.float64)
    image[:, :4, :4] = 0.5  # flat: no deviation
    scores = torch.rand(4, 6, 7, generator=generator, dtype=torch.float64)
    expected = literal_step(literal_step(scores, image, dilations), image, dilations)
    refined = refine_scores(scores, image, iterations=2, dilations=dilations)
    torch.testing.assert_close(refined, expected, atol=1e-9, rtol=0)


def test_classes_a_few_at_a_time_are_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    image, scores = torch.rand(3, 8, 12, generator=generator), torch.rand(5, 4, 6)
    upsampled = F.interpolate(scores[None], (8, 12), mode="bilinear")[0]
    whole = refine_scores(upsampled, image, iterations=3, dilations=(1, 2))
    monkeypatch.setattr(pamr, "MAX_CHUNK_ELEMENTS", 2 * 8 * 12)
    chunked = refine_grid(scores, image, iterations=3, dilations=(1, 2))
    assert torch.equal(chunked, whole)
    assert not torch.equal(chunked, upsampled)


def test_weights_are_a_mean() -> None:
    image = torch.rand(3, 9, 5, generator=torch.Generator().manual_seed(1))
    weights = neighbour_weights(image, (1, 4))
    assert weights.shape == (16, 9, 5)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(9, 5))
    torch.testing.assert_close(neighbour_weights(image * 255 - 3, (1, 4)), weights, atol=1e-3,
                               rtol=0)  # fmt: skip


def test_scores_stop_at_an_edge_of_the_picture() -> None:
    image = torch.zeros(3, 12, 12)
    image[:, :, 6:] = 1
    scores = torch.zeros(2, 12, 12)
    scores[0, :, :8], scores[1, :, 8:] = 1, 1  # two columns off the edge
    refined = refine_scores(scores, image)
    assert refined.argmax(dim=0).eq((torch.arange(12) >= 6).long()).all()
    assert refined.min() >= 0
    torch.testing.assert_close(refined.sum(dim=0), torch.ones(12, 12))


def test_no_iterations_change_nothing() -> None:
    scores = torch.rand(2, 3, 4)
    assert torch.equal(refine_scores(scores, torch.rand(3, 3, 4), iterations=0), scores)


@pytest.mark.usefixtures("unchecked_shapes")
def test_what_is_refused() -> None:
    scores = torch.rand(2, 3, 4)
    with pytest.raises(ValueError, match=r"image must have the scores' size, \(3, 4\)"):
        refine_scores(scores, torch.rand(3, 6, 8))
    for iterations, dilations in ((-1, (1,)), (1, ()), (1, (0,))):
        with pytest.raises(ValueError, match="no refinement with"):
            refine_scores(scores, torch.rand(3, 3, 4), iterations=iterations, dilations=dilations)
