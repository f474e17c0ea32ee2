"""Semantic coherence against a brute force over all pairs of tokens."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import references
from pacl.evaluation.metrics.coherence import compare_pairs, roc_curve, semantic_coherence


@given(data=st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_auroc_of_all_pairs_with_ties(data: list[tuple[int, bool]]) -> None:
    data = [*data, (1, True), (2, False)]
    scores, is_positive = [score for score, _ in data], [yes for _, yes in data]
    fpr, tpr, area = roc_curve(torch.tensor(scores).float(), torch.tensor(is_positive))
    assert area == pytest.approx(references.auroc(scores, is_positive), abs=1e-15)
    assert torch.trapezoid(tpr, fpr).item() == pytest.approx(area)
    for curve in (fpr, tpr):
        assert (curve[0], curve[-1]) == (0, 1)
        assert (curve.diff() >= 0).all()
        assert len(curve) == len(set(scores)) + 1


def test_coherence_of_every_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (12,), generator=generator)
    scores, is_same = [], []
    for a in range(12):
        for b in range(a):
            scores.append(references.cosine(tokens[a], tokens[b]).item())
            is_same.append(labels[a].item() == labels[b].item())
    result = semantic_coherence(tokens, labels, n_pairs=66, seed=0)
    assert result.auroc == pytest.approx(references.auroc(scores, is_same), abs=1e-12)
    longer = semantic_coherence(tokens * 8, labels, n_pairs=10**6, seed=5)
    assert longer.auroc == result.auroc


def test_coherence_of_perfect_reversed_and_meaningless_tokens() -> None:
    labels = torch.arange(3).repeat(4)
    perfect = torch.eye(3)[labels]
    assert semantic_coherence(perfect, labels, n_pairs=1000, seed=0).auroc == 1
    assert semantic_coherence(torch.ones(12, 3), labels, n_pairs=1000, seed=0).auroc == 0.5
    two = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    wrong = semantic_coherence(two, torch.tensor([0, 0, 1, 1]), n_pairs=1000, seed=0)
    assert wrong.auroc == 0.25  # same: 2 losses; other: 2 ties and 2 losses


def test_coherence_of_a_sample_estimates_that_of_all_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (300,), generator=generator)
    tokens = torch.eye(4)[labels] + torch.randn(300, 4, generator=generator)
    every = semantic_coherence(tokens, labels, n_pairs=10**5, seed=0).auroc
    samples = [semantic_coherence(tokens, labels, n_pairs=20_000, seed=s).auroc for s in (0, 1)]
    assert samples == pytest.approx([every, every], abs=0.02)
    assert samples[0] != samples[1]
    again = semantic_coherence(tokens.bfloat16().float(), labels, n_pairs=20_000, seed=0)
    assert again.auroc == pytest.approx(samples[0], abs=1e-3)


def test_the_draw_depends_on_the_seed_alone() -> None:
    tokens, labels = torch.randn(50, 3), torch.arange(50) % 2
    first = semantic_coherence(tokens, labels, n_pairs=100, seed=3)
    torch.manual_seed(9)
    second = semantic_coherence(tokens, labels, n_pairs=100, seed=3)
    assert first.auroc == second.auroc


def test_coherence_of_one_class_is_undefined() -> None:
    result = semantic_coherence(torch.eye(3), torch.zeros(3).int(), n_pairs=9, seed=0)
    assert math.isnan(float(result.auroc))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("tokens", "labels", "n_pairs", "message"),
    [
        (torch.ones(3), torch.ones(3).int(), 5, "tokens must be"),
        (torch.ones(1, 3), torch.ones(1).int(), 5, "tokens must be"),
        (torch.ones(3, 3), torch.ones(2).int(), 5, "labels must be 3"),
        (torch.ones(3, 3), torch.ones(3).int(), 0, "n_pairs must be"),
    ],
)
def test_wrong_coherence_inputs_are_named(
    tokens: Tensor, labels: Tensor, n_pairs: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        semantic_coherence(tokens, labels, n_pairs=n_pairs, seed=0)


def test_other_tokens_of_the_same_patches_get_the_same_pairs() -> None:
    labels = torch.arange(60) % 3
    narrow, wide = (
        compare_pairs(torch.randn(60, width), labels, n_pairs=200, seed=1) for width in (2, 5)
    )
    assert torch.equal(narrow.first, wide.first)
    assert torch.equal(narrow.second, wide.second)
    assert torch.equal(narrow.is_same, labels[narrow.first] == labels[narrow.second])
    assert not (narrow.first == narrow.second).any()
