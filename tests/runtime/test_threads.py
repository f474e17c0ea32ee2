"""Pieces of work on threads of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pacl.runtime.threads import map_on_threads

CPU = torch.device("cpu")


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
def test_results_come_in_order_from_threads_that_work_alone() -> None:
    found = list(map_on_threads(lambda k: (k, torch.get_num_threads()), range(20), device=CPU))
    assert found == [(k, 1) for k in range(20)]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("_two_threads")
def test_inference_mode_is_the_callers() -> None:
    with torch.inference_mode():
        target = torch.zeros(4)
        list(map_on_threads(lambda k: target[k].fill_(k), range(4), device=CPU))
    assert target.tolist() == [0, 1, 2, 3]
    modes = map_on_threads(lambda _: torch.is_inference_mode_enabled(), range(3), device=CPU)
    assert list(modes) == [False] * 3


@pytest.mark.usefixtures("_two_threads")
def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_on_threads(lambda k: 1 // k, [1, 0, 1], device=CPU))
