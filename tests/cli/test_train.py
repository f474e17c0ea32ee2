"""What `pacl train` prints and returns."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest

from checkpoints import write_clip
from pacl.cli import main
from pacl.cli import train as train_command
from pacl.training.train import Progress
from training_runs import write_pairs


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    words = ["train", "--data", str(write_pairs(folder / "pairs"))]
    words += ["--model", str(write_clip(folder / "clip")), "--steps", "3", "--batch-size", "4"]
    return [*words, "--device", "cpu"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_sigterm_is_obeyed_and_no_failure(
    line: list[str],
    tmp_path: Path,
    number: int,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [*line, "--output", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(train_command._Watch, "add", lambda *_: os.kill(os.getpid(), number))
        assert main(command) == code
    assert "stopped after step 1 of 3; the checkpoint is complete" in capsys.readouterr().err
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "resumed after step 1 of 3" in said
    assert "3 steps" in said
    assert "an image finds its caption among 4; chance is 25.0%" in said


def state(step: int, loss: float) -> Progress:
    return Progress(step, 1000, 11 * loss, loss, loss, 16, 0.1, 1.0, 1.0)


def test_it_says_early_where_the_loss_goes_and_that_it_learns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watch = train_command._Watch()
    chance = math.log(16)
    for step in range(1, 200):
        watch.add(state(step, chance * (1.3 - 0.01 * step)))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("step 5: the loss per caption went from 3.58 to 3.47 and falls")
    # The mean of 20 steps is below chance by 2 % at step 42.
    assert lines[1].startswith("step 42: it learns: the loss per caption is 2.7")
    assert "guessing: 6.2%" in lines[1]


@pytest.mark.parametrize(("factor", "says"), [(1.0, True), (0.9, False)])
def test_a_loss_at_chance_is_said_once(
    factor: float, says: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = train_command._Watch()
    for step in range(1, 200):
        watch.add(state(step, factor * math.log(16)))
    assert capsys.readouterr().err.count("still at chance (2.77)") == int(says)
