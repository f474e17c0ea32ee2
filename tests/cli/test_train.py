"""What `pacl train` prints and returns."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from checkpoints import write_clip
from pacl.cli import main
from pacl.training.chance import ChanceWatch
from training_runs import write_pairs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    words = ["train", "--data", str(write_pairs(folder / "pairs"))]
    words += ["--model", str(write_clip(folder / "clip")), "--steps", "3", "--batch-size", "4"]
    return [*words, "--device", "cpu", "--probe-every", "0"]


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
        patch.setattr(ChanceWatch, "add", lambda *_, **__: os.kill(os.getpid(), number) or [])
        assert main(command) == code
    assert "stopped after step 1 of 3; the checkpoint is complete" in capsys.readouterr().err
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "resumed after step 1 of 3" in said
    assert "3 steps" in said
    assert "an image finds its caption among 4; chance is 25.0%" in said
