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
    assert [each.n_zero_iou for each in reports] == [2, 2]  # b, c; c, d
    assert reports[0].to_json()["iou"]["d"] is None


def test_best_median_and_worst() -> None:
    nan = math.nan
    assert rank_images([0.5, nan, 0.1, 0.9]) == {"best": 3, "median": 0, "worst": 2}
    assert rank_images([0.2, 0.1, 0.4, 0.3]) == {"best": 2, "median": 0, "worst": 1}
    assert rank_images([0.7]) == {"best": 0, "median": 0, "worst": 0}
    assert rank_images([nan]) == rank_images([]) == {}
