"""Accuracy against a brute force over sorted lists."""

from __future__ import annotations

import json
import math

import pytest
import torch

from pacl.evaluation.metrics.classification import ClassAccuracy, rank_of_target


def test_equals_brute_force_with_ties_in_any_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (101, 9), generator=generator).double()
    targets = torch.randint(0, 8, (101,), generator=generator)  # class 8 has no picture
    accuracy = ClassAccuracy(9)
    for start, stop in ((0, 40), (40, 40), (40, 101)):
        accuracy.update(scores[start:stop], targets[start:stop])
    right, among_5, of_class = 0, 0, {k: [] for k in range(9)}
    for row, target in zip(scores.tolist(), targets.tolist(), strict=True):
        order = sorted(range(9), key=lambda k: (-row[k], k))
        right += order[0] == target
        among_5 += target in order[:5]
        of_class[target].append(order[0] == target)
    assert accuracy.n_images == 101
    assert accuracy.top1() == right / 101
    assert accuracy.top5() == among_5 / 101
    means = [sum(each) / len(each) for each in of_class.values() if each]
    assert accuracy.mean_per_class() == pytest.approx(sum(means) / len(means), abs=1e-15)
    assert accuracy.per_class()[:8].tolist() == pytest.approx(means, abs=1e-15)
    assert math.isnan(accuracy.per_class()[8])


def test_first_of_equal_scores_is_the_argmax() -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0]])
    ranks = [rank_of_target(scores, torch.tensor([k])).item() for k in range(3)]
    assert ranks == [2, 0, 1]


def test_top5_says_nothing_of_five_classes() -> None:
    accuracy = ClassAccuracy(5)
    accuracy.update(torch.eye(5), torch.arange(5))
    assert math.isnan(accuracy.top5())
    assert accuracy.top1() == 1.0


def test_counts_survive_json() -> None:
    accuracy = ClassAccuracy(3)
    accuracy.update(torch.eye(3), torch.tensor([0, 1, 1]))
    again = ClassAccuracy.from_json(json.loads(json.dumps(accuracy.to_json())))
    again.update(torch.eye(3), torch.tensor([0, 1, 2]))
    assert again.top1() == 5 / 6
    assert math.isnan(ClassAccuracy(3).top1())
    with pytest.raises(ValueError, match="counts must be"):
        ClassAccuracy.from_json([[1, 2]])


@pytest.mark.parametrize(
    ("scores", "targets", "words"),
    [
        (torch.eye(3), [0, 1], "scores must be"),
        (torch.eye(2), [0, 1], "scores must be"),
        (torch.eye(3), [0, 1, 3], "targets must be"),
        (torch.eye(3), [0, 1, -1], "targets must be"),
        (torch.full((3, 3), torch.nan), [0, 1, 2], "nan"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_refuses(scores: torch.Tensor, targets: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClassAccuracy(3).update(scores, torch.tensor(targets))


def test_no_classes() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ClassAccuracy(0)
