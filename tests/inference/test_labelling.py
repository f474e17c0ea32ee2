"""Upsampling by blocks and labels from few candidates, against plain forms that hold all scores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pacl.inference import labelling
from pacl.inference.blocks import MAX_SIDE_PX, Blocks
from pacl.inference.labelling import (
    Certainty,
    above_entropy,
    below_probability,
    can_win,
    iter_candidates,
    label_pixels,
)

SIDES = st.tuples(st.integers(1, 8), st.integers(1, 8))
SIZES = st.tuples(st.integers(1, 50), st.integers(1, 50))


@pytest.fixture(autouse=True, scope="module")
def _strips_of_small_images() -> Iterator[None]:
    """Images smaller than the least strip are cut into several here, as larger ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labelling, "MIN_STRIP", 1)
        yield


class Plain(NamedTuple):
    """The reference's maps, all float64."""

    label_map: Tensor
    probability: Tensor
    entropy: Tensor
    margin: Tensor
    """Score of the best name above the best name of another class."""


def label_plainly(scores: Tensor, classes: Tensor, size_px: tuple[int, int], scale: float) -> Plain:
    whole = F.interpolate(scores[None].double(), size_px, mode="bilinear", align_corners=False)[0]
    probabilities = (scale * whole).softmax(dim=0)
    best, name = whole.max(dim=0)
    others = whole.masked_fill(classes[:, None, None] == classes[name], -math.inf)
    entropy = -(probabilities * (scale * whole).log_softmax(dim=0)).sum(dim=0)
    return Plain(classes[name] + 1, probabilities.amax(dim=0), entropy, best - others.amax(dim=0))


def assert_same(
    scores: Tensor, classes: Tensor, size_px: tuple[int, int], scale: float = 20.0
) -> None:
    plain = label_plainly(scores, classes, size_px, scale)
    arguments = {"class_of_name": classes, "size_px": size_px, "logit_scale": scale}
    label_map, confidence = label_pixels(scores, **arguments)
    is_clear = plain.margin > 1e-5
    rounding = 1e-5 + 5e-7 * scale  # of float32 scores, enlarged by the scale
    assert label_map.dtype == torch.int16
    assert torch.equal(label_map[is_clear].long(), plain.label_map[is_clear])
    torch.testing.assert_close(confidence.double(), plain.probability, atol=0, rtol=rounding)

    alone, nothing = label_pixels(scores, **arguments, wants_confidence=False)
    assert torch.equal(alone, label_map)
    assert nothing.isnan().all()

    level = plain.entropy.mean().item()
    rule = partial(above_entropy, level=level)
    masked, _ = label_pixels(scores, **arguments, is_background=rule)
    is_certain = is_clear & ((plain.entropy - level).abs() > 1e-4)
    expected = plain.label_map.masked_fill(plain.entropy > level, 0)
    assert torch.equal(masked[is_certain].long(), expected[is_certain])


@settings(max_examples=60)
@given(
    grid=SIDES,
    size_px=SIZES,
    n_names=st.integers(1, 12),
    n_classes=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_any_size_equals_the_plain_form(
    grid: tuple[int, int], size_px: tuple[int, int], n_names: int, n_classes: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(n_names, *grid, generator=generator)
    assert_same(scores, torch.randint(n_classes, (n_names,), generator=generator), size_px)


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, 1000.0])
def test_any_logit_scale_equals_the_plain_form(scale: float) -> None:
    assert_same(torch.rand(30, 4, 5) * 2 - 1, torch.arange(30), (37, 50), scale)


@pytest.mark.parametrize("chunk", [1, 5000])
@pytest.mark.parametrize("min_names", [1, 16])
def test_small_chunks_change_nothing(
    monkeypatch: pytest.MonkeyPatch, chunk: int, min_names: int
) -> None:
    monkeypatch.setattr(labelling, "CHUNK", {"cpu": chunk})
    monkeypatch.setattr(labelling, "MIN_NAMES", min_names)
    assert_same(torch.rand(40, 3, 4), torch.arange(40), (30, 41))


def test_threads_and_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelling, "STRIP", {"cpu": 1000})
    scores = torch.rand(20, 9, 7)
    assert_same(scores, torch.arange(20), (95, 64))
    arguments = {"class_of_name": torch.arange(20), "size_px": (95, 64), "logit_scale": 20.0}
    expected = label_pixels(scores, **arguments)
    torch.set_num_threads(3)
    try:
        found = label_pixels(scores, **arguments)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert all(map(torch.equal, found, expected))


def test_more_names_than_16_bits_hold() -> None:
    classes = torch.tensor([40_000, 3])
    found, _ = label_pixels(
        torch.eye(2)[:, None], class_of_name=classes, size_px=(1, 2), logit_scale=1
    )
    assert found.tolist() == [[40_001, 4]]


def test_thousands_of_names_in_chunks() -> None:
    scores = torch.rand(2000, 3, 4)
    assert_same(scores, torch.arange(2000), (40, 60))
    blocks = Blocks(scores, (40, 60))
    seen = []
    for chosen, names in iter_candidates(blocks, range(len(blocks)), chunk=1 << 16):
        assert len(chosen) == 1 or names.numel() * blocks.n_pixels <= 1 << 16
        seen += chosen.tolist()
    assert sorted(seen) == list(range(len(blocks)))


def test_a_name_that_another_beats_at_all_four_patches_is_no_candidate() -> None:
    corners = torch.tensor([[5.0, 5, 5, 5], [4, 4, 4, 4.9], [0, 0, 0, 5.1], [5, 5, 5, 5]])
    assert can_win(corners.T[None]).tolist() == [[True, False, True, True]]


def test_a_winner_that_is_the_best_at_no_patch_is_found() -> None:
    """Third of three: never the best at a patch, but in the middle between the other two."""
    scores = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[0.9, 0.9]]])
    label_map, _ = label_pixels(
        scores, class_of_name=torch.arange(3), size_px=(1, 101), logit_scale=1.0
    )
    assert label_map[0, 0] == 1
    assert label_map[0, 50] == 3
    assert label_map[0, -1] == 2


def test_of_equal_names_the_first_wins() -> None:
    scores = torch.rand(1, 4, 4).expand(3, 4, 4)
    label_map, confidence = label_pixels(
        scores, class_of_name=torch.tensor([2, 0, 1]), size_px=(20, 20), logit_scale=5.0
    )
    assert (label_map == 3).all()
    torch.testing.assert_close(confidence, torch.full((20, 20), 1 / 3))


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


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(bad: float) -> None:
    scores = torch.rand(2, 3, 3)
    scores[1, 2, 0] = bad
    with pytest.raises(ValueError, match="finite"):
        label_pixels(scores, class_of_name=torch.arange(2), size_px=(9, 9), logit_scale=1.0)


def test_background_rules() -> None:
    certainty = Certainty(torch.tensor([0.7, 0.4]), torch.tensor([0.8, 1.09]))
    assert below_probability(certainty, 0.5).tolist() == [False, True]
    assert above_entropy(certainty, 1.0).tolist() == [False, True]


def test_autocast_changes_nothing() -> None:
    scores = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    arguments = {"class_of_name": torch.arange(5), "size_px": (20, 17), "logit_scale": 20.0}
    expected = label_pixels(scores, **arguments)
    with torch.autocast("cpu", torch.bfloat16):
        found = label_pixels(scores, **arguments)
    assert all(map(torch.equal, found, expected))


def upsample(scores: Tensor, size_px: tuple[int, int]) -> Tensor:
    blocks = Blocks(scores, size_px)
    every = torch.arange(len(blocks))
    values = blocks.corners(every).mT @ blocks.weights(every)
    strips = [values[strip.start : strip.stop] for strip in blocks.cut(8)]
    maps = [
        torch.stack([blocks.assemble(value, strip) for value in part.unbind(dim=1)])
        for part, strip in zip(strips, blocks.cut(8), strict=True)
    ]
    return torch.cat(maps, dim=1)


def assert_equals_interpolate(scores: Tensor, size_px: tuple[int, int]) -> None:
    expected = F.interpolate(scores[None].double(), size_px, mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsample(scores, size_px).double(), expected[0], atol=1e-6, rtol=0)


@settings(max_examples=40)
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size_px=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_any_size_equals_interpolate(grid: tuple[int, int], size_px: tuple[int, int]) -> None:
    assert_equals_interpolate(torch.rand(2, *grid), size_px)


@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (2, 1), (32, 43)])
@pytest.mark.parametrize("size_px", [(1, 1), (512, 683), (701, 3), (32, 43)])
def test_sizes_far_apart_equal_interpolate(grid: tuple[int, int], size_px: tuple[int, int]) -> None:
    assert_equals_interpolate(torch.rand(2, *grid), size_px)


def test_blocks_are_small_and_waste_little() -> None:
    blocks = Blocks(torch.rand(1, 32, 43), (512, 683))
    assert blocks.n_pixels == 16 * 16
    assert len(blocks) == 33 * 44
    large = Blocks(torch.rand(1, 14, 14), (3000, 4000))
    assert large.n_pixels <= MAX_SIDE_PX**2
    assert len(large) * large.n_pixels <= 1.25 * 3000 * 4000


def test_weights_are_shares() -> None:
    blocks = Blocks(torch.rand(1, 3, 4), (50, 31))
    weights = blocks.weights(torch.arange(len(blocks)))
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(blocks), blocks.n_pixels))
