"""What is said of a run whose loss leaves chance, or stays there."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from checkpoints import write_clip
from pacl.training.chance import ChanceWatch
from pacl.training.config import TrainConfig
from pacl.training.train import train
from training_runs import write_pairs

CHANCE = math.log(16)


def sentences(losses: list[float], n_steps: int = 1000) -> list[str]:
    watch = ChanceWatch(n_steps, 16)
    return [
        sentence
        for step, loss in enumerate(losses, start=1)
        for sentence in watch.add(step, loss=loss, accuracy=0.1)
    ]


def test_it_says_early_where_the_loss_goes_and_that_it_learns() -> None:
    first, second = sentences([CHANCE * (1.3 - 0.01 * step) for step in range(1, 200)])
    assert first.startswith("step 5: the loss per caption went from 3.58 to 3.47 and falls")
    # The mean of 20 steps is below chance by 2 % at step 42.
    assert second.startswith("step 42: it learns: the loss per caption is 2.7")
    assert "guessing: 6.2%" in second


@pytest.mark.parametrize(("factor", "says"), [(1.0, True), (0.9, False)])
def test_a_loss_at_chance_is_said_once(factor: float, says: bool) -> None:
    said = "\n".join(sentences([factor * CHANCE] * 199))
    assert said.count("still at chance (2.77)") == int(says)


def test_a_run_of_a_few_steps_is_not_judged() -> None:
    assert sentences([CHANCE] * 5, n_steps=5) == []


def test_a_run_passes_it_on(tmp_path: Path) -> None:
    news: list[str] = []
    config = TrainConfig(
        data=write_pairs(tmp_path / "pairs"),
        model=str(write_clip(tmp_path / "clip")),
        output=tmp_path / "run",
        batch_size=4,
        steps=6,
        probe_every=0,
        device="cpu",
    )
    train(config, progress=lambda state: news.extend(state.news))
    assert sum("guessing is at 1.39" in sentence for sentence in news) == 1
