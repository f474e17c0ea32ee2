"""Labels of pixels, in chunks of rows, against the plain form that holds all scores."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from pacl import labelling
from pacl.labelling import above_entropy, below_probability, iter_upsampled_rows, label_pixels


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (7, 3), (9, 9)])
@pytest.mark.parametrize("size_px", [(1, 1), (5, 3), (64, 31), (40, 90)])
@pytest.mark.parametrize("chunk", [1, 700, 1 << 21])
def test_rows_in_chunks_equal_interpolate(
    monkeypatch: pytest.MonkeyPatch, grid: tuple[int, int], size_px: tuple[int, int], chunk: int
) -> None:
    monkeypatch.setattr(labelling, "MAX_CHUNK_ELEMENTS", chunk)
    scores = torch.randn(6, *grid, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(scores[None], size_px, mode="bilinear", align_corners=False)[0]
    upsampled = torch.cat([c for _, c in iter_upsampled_rows(scores, size_px=size_px)], dim=1)
    torch.testing.assert_close(upsampled, whole, atol=1e-5, rtol=1e-5)

    label_map, confidence = label_pixels(
        scores, class_of_name=torch.arange(6), size_px=size_px, logit_scale=3.0
    )
    gap = whole.topk(2, dim=0).values
    is_clear = gap[0] - gap[1] > 1e-4
    assert label_map.shape == size_px
    assert torch.equal(label_map[is_clear], (whole.argmax(dim=0) + 1).int()[is_clear])
    torch.testing.assert_close(confidence, (3 * whole).softmax(dim=0).amax(dim=0))


def test_no_more_than_a_chunk_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelling, "MAX_CHUNK_ELEMENTS", 5 * 80 * 4)
    chunks = [c for _, c in iter_upsampled_rows(torch.rand(5, 6, 6), size_px=(50, 80))]
    assert len(chunks) == 13
    assert max(chunk.numel() for chunk in chunks) <= 5 * 80 * 4


def test_several_names_softmax_over_all_then_the_best_of_the_class() -> None:
    """Class 0 has two names of middling score, class 1 one better: class 1 wins."""
    scores = torch.tensor([0.5, 0.5, 0.6]).reshape(3, 1, 1)
    names = torch.tensor([0, 0, 1])
    label_map, confidence = label_pixels(
        scores, class_of_name=names, size_px=(1, 1), logit_scale=1.0
    )
    assert label_map.item() == 2
    expected = math.exp(0.6) / (2 * math.exp(0.5) + math.exp(0.6))
    assert confidence.item() == pytest.approx(expected)


def test_only_candidates_compete() -> None:
    scores = torch.tensor([0.9, 0.1, 0.2]).reshape(3, 1, 1)
    label_map, confidence = label_pixels(
        scores,
        class_of_name=torch.arange(3),
        size_px=(1, 1),
        logit_scale=1.0,
        candidates=[1, 2],
    )
    assert label_map.item() == 3
    assert confidence.item() == pytest.approx(1 / (1 + math.exp(-0.1)))
    with pytest.raises(ValueError, match="no class"):
        label_pixels(
            scores, class_of_name=torch.arange(3), size_px=(1, 1), logit_scale=1.0, candidates=[]
        )


def test_background_rules() -> None:
    probabilities = torch.tensor([[0.7, 0.4], [0.2, 0.3], [0.1, 0.3]])[:, None]
    assert below_probability(probabilities, 0.5).tolist() == [[False, True]]
    entropies = -(probabilities * probabilities.log()).sum(0)
    level = entropies.mean().item()
    assert above_entropy(probabilities, level).tolist() == [[False, True]]
    assert not above_entropy(torch.tensor([[[1.0]], [[0.0]]]), 0.0).any()
