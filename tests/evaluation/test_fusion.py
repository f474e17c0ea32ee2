"""The mix of PACL and CLIP: its weight is the best on the pictures it is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pacl.evaluation.fusion import choose_clip_share, draw_evenly, fuse_logits, max_over_names

NAMES = torch.arange(3)


def test_the_ends_are_pacl_and_clip() -> None:
    pacl, clip = torch.randn(2, 4, 3).unbind()
    assert torch.equal(fuse_logits(pacl, clip, 0.0), pacl)
    assert torch.equal(fuse_logits(pacl, clip, 1.0), clip)
    torch.testing.assert_close(fuse_logits(pacl, clip, 0.5), (pacl + clip) / 2)


def test_the_share_is_the_best_of_a_search() -> None:
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(0, 3, (60,), generator=generator)
    truth = torch.eye(3, dtype=torch.double)[targets]
    noise = torch.randn(2, 60, 3, generator=generator, dtype=torch.double)
    pacl, clip = truth + noise[0], truth + 0.7 * noise[1]
    chosen = choose_clip_share(pacl, clip, targets, class_of_name=NAMES)
    candidates = {}
    for share in (step / 20 for step in range(21)):
        mixed = share * clip + (1 - share) * pacl
        n_right = int((mixed.argmax(1) == targets).sum())
        loss = -mixed.log_softmax(1)[torch.arange(60), targets].mean().item()
        candidates[share] = (n_right, -loss)
    best = max(candidates, key=lambda share: candidates[share])
    assert 0 < best < 1
    assert chosen.clip_share == best
    assert chosen.n_images == 60
    assert chosen.top1 == candidates[best][0] / 60


def test_the_share_goes_to_the_better_score() -> None:
    targets = torch.tensor([0, 1, 2, 2])
    good, bad = 5 * torch.eye(3)[targets], 5 * torch.eye(3)[(targets + 1) % 3]
    assert choose_clip_share(bad, good, targets, class_of_name=NAMES).clip_share == 1.0
    assert choose_clip_share(good, bad, targets, class_of_name=NAMES).clip_share == 0.0


def test_a_class_scores_as_its_best_name() -> None:
    logits = torch.tensor([[1.0, 4.0, -3.0, 2.0]])
    scores = max_over_names(logits, torch.tensor([0, 1, 1, 0]), 2)
    assert scores.tolist() == [[2.0, 4.0]]


@pytest.mark.parametrize("n_images", [1, 4, 7, 99])
def test_draws_as_many_of_each_class(n_images: int) -> None:
    targets = np.array([0] * 10 + [1] * 3 + [2] * 10 + [5])
    np.random.default_rng(0).shuffle(targets)
    rows = draw_evenly(targets, n_images, seed=1)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(rows) == min(n_images, 24)
    counts = np.bincount(targets[rows], minlength=6)[[0, 1, 2, 5]]
    room = np.array([10, 3, 10, 1])
    assert all(count == have or count >= counts.max() - 1
               for count, have in zip(counts, room, strict=True))  # fmt: skip


def test_the_draw_is_seeded() -> None:
    targets = np.arange(100) % 4
    first, again, other = (draw_evenly(targets, 8, seed=s).tolist() for s in (0, 0, 1))
    assert first == again != other
