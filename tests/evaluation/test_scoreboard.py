from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import references
from pacl.evaluation.scoreboard import Scoreboard, rank_images

N_CLASSES = 4


def draw_maps(n_images: int, *, seed: int) -> list[tuple[list[np.ndarray], np.ndarray]]:
    """Two predictions and the truth of each image."""
    rng = np.random.default_rng(seed)
    return [
        (
            [rng.integers(-1, N_CLASSES, (5, 6)) for _ in range(2)],
            rng.choice([0, 1, 2, 255], (5, 6)),
        )
        for _ in range(n_images)
    ]


def fill(board: Scoreboard, maps: list[tuple[list[np.ndarray], np.ndarray]]) -> Scoreboard:
    for predictions, target in maps:
        board.update(predictions, target)
    return board


def new() -> Scoreboard:
    return Scoreboard(("plain", "refined"), N_CLASSES, ignore_label=255)


def test_rows_are_scored_side_by_side() -> None:
    maps = draw_maps(3, seed=0)
    board = fill(new(), maps)
    targets = [torch.from_numpy(target) for _, target in maps]
    for row in range(2):
        predictions = [torch.from_numpy(each[row]) for each, _ in maps]
        report = board.report(row, labels=("a", "b", "c", "d"), seconds=1.5, protocol={"a": 1})
        expected = references.iou(predictions, targets, N_CLASSES, [255])
        np.testing.assert_allclose(report.iou, expected, atol=1e-12)
        assert report.miou == pytest.approx(np.nanmean(expected), abs=1e-12)
        for k, own in enumerate(board.image_miou[row]):
            of_image = references.iou([predictions[k]], [targets[k]], N_CLASSES, [255])
            assert own == pytest.approx(np.nanmean(of_image), abs=1e-12)
    assert (board.n_images, board.rows) == (3, ("plain", "refined"))


def test_resuming_equals_going_through() -> None:
    maps = draw_maps(5, seed=1)
    board = new()
    board.restore(fill(new(), maps[:2]).state())
    assert board.n_images == 2
    fill(board, maps[2:])
    whole = fill(new(), maps)
    assert board.image_miou == whole.image_miou
    labels = ("a", "b", "c", "d")
    for row in range(2):
        assert board.report(row, labels=labels, seconds=0, protocol={}) == whole.report(
            row, labels=labels, seconds=0, protocol={}
        )


def test_classes_that_are_never_found() -> None:
    board = new()
    board.update([np.array([[0, 0, 0]]), np.array([[0, 1, 3]])], np.array([[0, 1, 2]]))
    labels = ("a", "b", "c", "d")
    reports = [board.report(row, labels=labels, seconds=0, protocol={}) for row in range(2)]
    assert [each.n_zero_iou for each in reports] == [2, 1]  # b, c; c, for d is not in the truth
    assert [each.n_present for each in reports] == [3, 3]
    assert reports[0].to_json()["iou"]["d"] is None


def draw_blots(n_images: int) -> list[tuple[list[np.ndarray], np.ndarray]]:
    """Truths with components of all sizes, some of one pixel, and predictions near them."""
    rng, maps = np.random.default_rng(2), []
    for k in range(n_images):
        size_px = (31 + k, 40 - k)
        target = rng.integers(0, 3, (8, 10)).repeat(5, 0).repeat(5, 1)[: size_px[0], : size_px[1]]
        target = np.where(rng.random(size_px) < 0.03, rng.choice([1, 3, 255], size_px), target)
        noisy = [np.where(rng.random(size_px) < share, rng.integers(-1, N_CLASSES, size_px), target)
                 for share in (0.2, 0.6)]  # fmt: skip
        maps.append(([np.where(each == 255, -1, each) for each in noisy], target))
    return maps


def test_sizes_of_components_are_those_of_a_flood_fill() -> None:
    maps = draw_blots(3)
    board = fill(new(), maps)
    targets = [torch.from_numpy(target) for _, target in maps]
    for row in range(2):
        predictions = [torch.from_numpy(each[row]) for each, _ in maps]
        report = board.report(row, labels=("a", "b", "c", "d"), seconds=0, protocol={})
        expected = references.iou_by_size(predictions, targets, N_CLASSES, [255])
        assert np.isfinite(expected).any(axis=1).all()
        means = [np.nanmean(each) for each in expected]
        np.testing.assert_allclose(list(report.miou_by_size.values()), means, atol=1e-12)
        matrix, counts = board._matrices[row], board._sizes
        by_size = counts.iou(row, n_true=matrix.n_true().numpy(), n_false=matrix.n_false().numpy())
        np.testing.assert_allclose(by_size, expected, atol=1e-12)
        joined = np.nansum(by_size * counts.pixels / counts.pixels.sum(axis=0), axis=0)
        np.testing.assert_allclose(joined, report.iou, atol=1e-12)


@pytest.mark.parametrize(("n_pixels", "size"), [(1, "medium"), (8, "medium"), (9, "large")])
def test_limits_belong_to_the_larger_size(n_pixels: int, size: str) -> None:
    """Of 300 pixels 1 is 1/300, and 9 are 3/100."""
    target = np.full((10, 30), 255)
    target[4, :n_pixels] = 1
    board = Scoreboard(("plain",), 2, ignore_label=255)
    board.update([target], target)
    report = board.report(0, labels=("a", "b"), seconds=0, protocol={})
    assert [name for name, miou in report.miou_by_size.items() if miou == 1] == [size]


def test_an_ignored_class_has_no_size() -> None:
    board = Scoreboard(("plain",), 3, ignore_label=1)
    board.update([np.array([[0, 1, 2]])], np.array([[0, 1, 1]]))
    report = board.report(0, labels=("a", "b", "c"), seconds=0, protocol={})
    assert (report.n_present, report.n_zero_iou) == (1, 0)
    assert report.to_json()["miou_by_size"] == {"small": None, "medium": None, "large": 1.0}


def test_best_median_and_worst() -> None:
    nan = math.nan
    assert rank_images([0.5, nan, 0.1, 0.9]) == {"best": 3, "median": 0, "worst": 2}
    assert rank_images([0.2, 0.1, 0.4, 0.3]) == {"best": 2, "median": 0, "worst": 1}
    assert rank_images([0.7]) == {"best": 0, "median": 0, "worst": 0}
    assert rank_images([nan]) == rank_images([]) == {}
