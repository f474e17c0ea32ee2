"""The bootstrap against a brute force that really repeats the images it draws."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

import references
from pacl.evaluation.metrics.bootstrap import (
    draw_images,
    percentile_interval,
    resample_auroc,
    resample_share,
)

N_IMAGES = 5


@pytest.fixture
def counts() -> Tensor:
    return draw_images(N_IMAGES, 40, seed=0)


def test_each_resample_draws_as_many_images(counts: Tensor) -> None:
    assert counts.sum(dim=1).tolist() == [N_IMAGES] * 40
    assert (counts >= 0).all()
    assert torch.equal(counts, draw_images(N_IMAGES, 40, seed=0))
    assert not torch.equal(counts, draw_images(N_IMAGES, 40, seed=1))
    many = draw_images(3, 20_000, seed=2).double()
    assert many.mean(dim=0).tolist() == pytest.approx([1, 1, 1], abs=0.03)
    assert many.var(dim=0).tolist() == pytest.approx([2 / 3] * 3, abs=0.03)


def test_a_share_of_repeated_images(counts: Tensor) -> None:
    n_right, n_all = torch.tensor([3, 0, 7, 2, 0]), torch.tensor([4, 5, 7, 9, 0])
    shares = resample_share(n_right, n_all, counts)
    for row, share in zip(counts.tolist(), shares.tolist(), strict=True):
        images = [k for k in range(N_IMAGES) for _ in range(row[k])]
        total = sum(n_all[k].item() for k in images)
        right = sum(n_right[k].item() for k in images)
        assert share == pytest.approx(right / total, abs=1e-15) if total else math.isnan(share)


@pytest.mark.parametrize("n_values", [4, 10**6])  # with ties and without
def test_an_area_of_repeated_images(n_values: int, counts: Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.arange(N_IMAGES).repeat_interleave(4)
    label = torch.randint(0, 2, (20,), generator=generator)
    pairs = list(itertools.combinations(range(20), 2))
    first, second = torch.tensor(pairs).T
    scores = torch.randint(0, n_values, (len(pairs),), generator=generator).double()
    is_same = label[first] == label[second]
    areas = resample_auroc(
        scores, is_same, first_image=image[first], second_image=image[second], counts=counts
    )
    for row, area in zip(counts[:12].tolist(), areas[:12].tolist(), strict=True):
        # every copy of every patch, as (image, copy, patch)
        copies = [(k, c, p) for k in range(N_IMAGES) for c in range(row[k])
                  for p in range(20) if image[p] == k]  # fmt: skip
        listed = [
            number
            for number, (a, b) in enumerate(pairs)
            for (k, c, p) in copies
            for (m, d, q) in copies
            if (p, q) == (a, b) and (k != m or c == d)
        ]
        expected = references.auroc(scores[listed].tolist(), is_same[listed].tolist())
        assert area == pytest.approx(expected, abs=1e-12)


def test_every_image_once_gives_the_area_itself() -> None:
    generator = torch.Generator().manual_seed(2)
    scores = torch.rand(200, generator=generator)
    is_same = torch.rand(200, generator=generator) < scores
    images = torch.randint(0, N_IMAGES, (2, 200), generator=generator)
    once = torch.ones(1, N_IMAGES, dtype=torch.int64)
    area = resample_auroc(
        scores, is_same, first_image=images[0], second_image=images[1], counts=once
    )
    expected = references.auroc(scores.tolist(), is_same.tolist())
    assert area.item() == pytest.approx(expected, abs=1e-12)


def test_an_area_without_one_kind_is_undefined() -> None:
    ones = torch.zeros(3, dtype=torch.int64)
    area = resample_auroc(
        torch.rand(3),
        torch.ones(3, dtype=torch.bool),
        first_image=ones,
        second_image=ones + 1,
        counts=torch.ones(2, 2, dtype=torch.int64),
    )
    assert area.isnan().all()


def test_the_interval_is_the_middle() -> None:
    values = torch.arange(101, dtype=torch.float64)[torch.randperm(101)]
    assert percentile_interval(values, confidence=0.9) == pytest.approx((5, 95))
    with_nan = torch.cat([values, torch.tensor([torch.nan])])
    assert percentile_interval(with_nan, confidence=0.9) == pytest.approx((5, 95))
    assert all(map(math.isnan, percentile_interval(values[:0], confidence=0.9)))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    n_covered = 0
    for trial in range(200):
        # images differ: each has its own rate, the mean of which is 1/2
        rates = torch.rand(60, generator=generator)
        n_all = torch.full((60,), 30)
        n_right = torch.binomial(n_all.float(), rates, generator=generator).long()
        shares = resample_share(n_right, n_all, draw_images(60, 200, seed=trial))
        low, high = percentile_interval(shares, confidence=0.9)
        n_covered += low <= 0.5 <= high
    assert 165 <= n_covered <= 195
