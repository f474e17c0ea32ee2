"""Windows cover every pixel, and their scores land where they were looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pacl.inference.windows import patches_to_cells, score_maps, windows

PATCH_PX = 4


def red_or_not(images: Tensor) -> Tensor:
    """Two names: the mean red of each patch, and a half everywhere."""
    red = F.avg_pool2d(images[:, :1], PATCH_PX)
    return torch.cat([red, torch.full_like(red, 0.5)], dim=1)


@settings(max_examples=40)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    window=st.integers(1, 40),
    data=st.data(),
)
def test_windows_cover_every_pixel(height: int, width: int, window: int, data) -> None:
    stride = data.draw(st.integers(1, window))
    seen = np.zeros((height, width), dtype=int)
    found = windows(height, width, window=window, stride=stride)
    for top, left, bottom, right in found:
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        assert (bottom - top, right - left) == (min(window, height), min(window, width))
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1
    assert len(set(found)) == len(found)


def test_the_last_window_is_moved_inwards() -> None:
    assert windows(4, 11, window=4, stride=4) == [(0, 0, 4, 4), (0, 4, 4, 8), (0, 7, 4, 11)]


def test_a_stride_that_leaves_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match="stride 5"):
        windows(20, 20, window=4, stride=5)


def score_all(inputs: list[Tensor], window_px: int | None, stride_px: int | None = None):
    return score_maps(
        inputs,
        red_or_not,
        window_px=window_px,
        window_stride_px=stride_px,
        patch_px=PATCH_PX,
        cell_px=PATCH_PX,
        batch_size=3,
    )


@pytest.mark.parametrize(("window_px", "stride_px"), [(None, None), (32, None), (8, 8), (12, 4)])
def test_windows_of_a_local_scorer_change_nothing(
    window_px: int | None, stride_px: int | None
) -> None:
    inputs = [torch.rand(3, 20, 32), torch.rand(3, 32, 8), torch.rand(3, 4, 4)]
    for picture, scores in zip(inputs, score_all(inputs, window_px, stride_px), strict=True):
        torch.testing.assert_close(scores, red_or_not(picture[None])[0])


def test_overlapping_windows_are_averaged_by_their_number() -> None:
    calls: list[int] = []

    def nth_window(images: Tensor) -> Tensor:
        values = torch.arange(len(calls), len(calls) + len(images)).float()
        calls.extend([0] * len(images))
        return values.reshape(-1, 1, 1, 1).expand(-1, 1, 1, 2)

    (scores,) = score_maps(
        [torch.rand(3, 4, 16)],
        nth_window,
        window_px=8,
        window_stride_px=4,
        patch_px=4,
        cell_px=4,
        batch_size=2,
    )
    assert scores.tolist() == [[[0.0, 0.5, 1.5, 2.0]]]


@pytest.mark.parametrize("cell_px", [1, 2, 3])
def test_finer_patches_are_put_where_they_were_looked_at(cell_px: int) -> None:
    """A linear ramp, measured at the patches' centres, comes back linear at the cells' centres."""
    n_cells = 24 // cell_px
    n_patches = (24 - PATCH_PX) // cell_px + 1
    patch_centres = torch.arange(n_patches) * cell_px + PATCH_PX / 2
    cell_centres = (torch.arange(n_cells) + 0.5) * cell_px
    ramp = patch_centres.clone()[None, None, :, None] + 100 * patch_centres
    cells = patches_to_cells(ramp, patch_px=PATCH_PX, cell_px=cell_px)
    reached = cell_centres.clamp(patch_centres[0], patch_centres[-1])
    torch.testing.assert_close(cells[0, 0], reached[:, None] + 100 * reached)
