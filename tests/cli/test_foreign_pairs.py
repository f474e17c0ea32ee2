"""A convolutional tower and word vectors through every command that a CLIP goes through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pacl
from classification_copies import COPIES
from foreign_towers import write_resnet, write_words
from pacl.cli import main
from pacl.training.config import TrainConfig
from pacl.training.train import Progress
from pacl.training.train import train as run_training
from training_runs import write_pairs

pytestmark = pytest.mark.slow

WORDS = ("a red green blue house boat tree car near photo of the",)


@pytest.fixture(autouse=True)
def towers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_resnet(Path("vision"))
    write_words(Path("words"), sentences=WORDS)
    write_pairs(Path("data"))


def train(output: str, *more: str) -> int:
    line = ["train", "--data", "data", "--vision", "vision", "--text", "words", "--batch-size", "6"]
    line += ["--steps", "4", "--probe-every", "0", "--precision", "fp32", "--output", output]
    return main([*line, *more])


@pytest.mark.parametrize("head", ["vision", "text", "both"])
def test_train_segment_classify_evaluate(head: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("run", "--head", head) == 0
    config = json.loads(Path("run/last/config.json").read_text())
    assert (config["vision"], config["text"]) == ("vision", "words")
    photo, model = "data/images/0.png", ["--model", "run"]
    assert main(["segment", photo, "--labels", "house,boat", *model]) == 0
    assert main(["classify", photo, "--labels", "house,boat", *model]) == 0
    _write_masks(Path("masks"))
    assert main(["evaluate", "masks", *model, "--output", "scores"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "masks", *model, "--output", "scores"]) == 0
    assert "scored before" in capsys.readouterr().err
    fine = ["--patch-stride-px", "4", "--output", "fine"]
    assert main(["segment", photo, "--labels", "boat", *model, *fine]) == 2
    assert "one token every 16 px" in capsys.readouterr().err
    assert main(["classify", photo, "--labels", "house,boat", *model, "--score", "clip"]) == 2
    assert "no joint space" in capsys.readouterr().err


def test_align_and_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("runs/pair") == 0
    _write_masks(Path("masks"))
    capsys.readouterr()
    line = ["align", "masks", "--model", "runs/pair", "--n-pairs", "200", "--output", "aligned"]
    assert main([*line, "--n-resamples", "10"]) == 0
    table, notes = capsys.readouterr()
    [of_all] = [row for row in table.splitlines() if row.startswith("patch accuracy, all")]
    assert of_all.split()[4:6] == ["-", "-"]
    assert "no patch accuracy of frozen tokens" in notes
    [saved] = Path("aligned").glob("*.json")
    content = json.loads(saved.read_text())
    for name in ("patch_accuracy_all", "patch_accuracy_present"):
        assert content["frozen"][name] == {"value": None, "low": None, "high": None}
        assert 0 <= content["embedded"][name]["value"] <= 1
    assert 0 <= content["frozen"]["coherence_auroc"]["value"] <= 1
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    pair = {"model": "runs/pair", "kind": "PACL embedder", "of": "vision and words", "steps": 4}
    assert pair in rows


def test_classification_has_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("run", "--head", "text") == 0
    COPIES["pets"](Path("data"))
    capsys.readouterr()
    line = ["evaluate", "pets", "--root", "data", "--model", "run", "--output", "scores"]
    assert main(line) == 0
    printed = capsys.readouterr().out
    assert "PACL's score alone" in printed
    assert [row.split()[4] for row in printed.splitlines() if row.startswith("pets  ")] == ["pacl"]
    [saved] = Path("scores").glob("pets_*.json")
    content = json.loads(saved.read_text())
    assert (list(content["rows"]), content["fusion"]) == (["pacl"], None)
    assert main(line) == 0
    assert "scored before" in capsys.readouterr().err


def test_a_baseline_needs_a_clip(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("run") == 0
    _write_masks(Path("masks"))
    assert main(["evaluate", "masks", "--model", "run", "--baseline", "clip"]) == 2
    assert "leave out --baseline" in capsys.readouterr().err


def _write_masks(folder: Path) -> None:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.txt").write_text("house\nboat\n")
    for number in range(2):
        Image.open(f"data/images/{number}.png").save(folder / "images" / f"{number}.png")
        mask = np.tile(np.array([0, 1], dtype=np.uint8).repeat(16), (32, 1))
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")


def _config(output: str) -> TrainConfig:
    return TrainConfig(
        data=Path("data"),
        output=Path(output),
        vision="vision",
        text="words",
        head="both",
        batch_size=6,
        steps=4,
        precision="fp32",
        checkpoint_every=2,
        probe_every=0,
    )


def test_resuming_ends_with_the_same_weights() -> None:
    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise RuntimeError("killed")

    run_training(_config("whole"))
    with pytest.raises(RuntimeError, match="killed"):
        run_training(_config("parts"), progress=stop)
    run_training(_config("parts"))
    ours, whole = (pacl.load(run, device="cpu").pacl for run in ("parts", "whole"))
    assert ours.fingerprint == whole.fingerprint


def test_two_processes_train_what_one_trains() -> None:
    config = _config("two")
    run_training(_config("one"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    line = ["--data", "data", "--vision", "vision", "--text", "words", "--head", "both"]
    line += ["--batch-size", "6", "--steps", "4", "--precision", "fp32", "--output", "two"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*launcher, "-m", "pacl", "train", *line, "--checkpoint-every", "2", "--probe-every", "0"],
        check=True,
        capture_output=True,
        env=environment,
    )
    one, two = (pacl.load(run, device="cpu").pacl for run in ("one", config.output))
    for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_changed_tower_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("run") == 0
    write_words(Path("words"), seed=1, sentences=WORDS)
    assert main(["segment", "data/images/0.png", "--labels", "boat", "--model", "run"]) == 2
    assert "another tower than words" in capsys.readouterr().err


def test_one_tower_alone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "data", "--output", "run", "--vision", "vision"]) == 2
    assert "give both --vision and --text" in capsys.readouterr().err


def test_texts_and_patches_both_learn() -> None:
    assert train("run", "--head", "both") == 0
    model = pacl.load("run", device="cpu").pacl
    for embedder in (model.embedder, model.text_embedder):
        assert embedder is not None
        fresh = type(embedder)(embedder.width, embedder.joint_width)
        assert not torch.equal(embedder.main_in.weight, fresh.main_in.weight)
