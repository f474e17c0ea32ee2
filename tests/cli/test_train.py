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
    assert "3 steps" in said
    assert "an image finds its caption among 4; chance is 25.0%" in said


def state(step: int, loss: float) -> Progress:
    return Progress(step, 1000, 11 * loss, loss, loss, 16, 0.1, 1.0, 1.0)


@pytest.mark.parametrize(("factor", "says"), [(1.0, True), (0.9, False)])
def test_a_loss_at_chance_is_said_once(
    factor: float, says: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = train_command._Watch()
    for step in range(1, 200):
        watch.add(state(step, factor * math.log(16)))
    assert capsys.readouterr().err.count("still at chance (2.77)") == int(says)
