"""A DINOv2 with a CLIP's texts, and both towers of a SigLIP, through the commands."""

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
from checkpoints import write_clip
from foreign_towers import write_vit, write_word_tokenizer
from pacl.cli import main
from pacl.evaluation.segmentation import OTHER_TOWER
from pacl.training.config import TrainConfig
from pacl.training.train import Progress, train
from training_runs import write_pairs

pytestmark = pytest.mark.slow

PAIRS = {"dinov2 and clip": ("dinov2", "clip"), "siglip": ("siglip", "siglip")}


@pytest.fixture(params=PAIRS)
def line(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Arguments of a short training with one pair of towers."""
    monkeypatch.chdir(tmp_path)
    vision, text = PAIRS[request.param]
    if vision == "siglip":
        write_word_tokenizer(write_vit("SiglipModel", Path("siglip")))
    else:
        write_vit("Dinov2WithRegistersModel", Path("dinov2"))
        write_clip(Path("clip"))
    write_pairs(Path("data"))
    towers = ["train", "--data", "data", "--vision", vision, "--text", text, "--precision", "fp32"]
    towers += ["--batch-size", "6", "--steps", "3", "--checkpoint-every", "1"]
    return [*towers, "--probe-every", "0"]


def test_train_segment_evaluate_classify(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*line, "--output", "run"]) == 0
    photo, model = "data/images/0.png", ["--model", "run"]
    stride = str(pacl.load("run", device="cpu").pacl.vision.patch_size_px // 2)
    fine = ["--patch-stride-px", stride, "--formats", "png", "--output", "fine"]
    assert main(["segment", photo, "--labels", "house,boat", *model, *fine]) == 0
    assert main(["classify", photo, "--labels", "house,boat", *model]) == 0
    assert main(["classify", photo, "--labels", "house,boat", *model, "--score", "clip"]) == 2
    for name in ("images", "masks"):
        Path("masks", name).mkdir(parents=True)
    Path("masks/classes.txt").write_text("house\nboat\n")
    Image.open(photo).save("masks/images/0.png")
    mask = np.tile(np.array([0, 1], dtype=np.uint8).repeat(16), (32, 1))
    Image.fromarray(mask).save("masks/masks/0.png")
    assert main(["evaluate", "masks", *model, "--output", "scores"]) == 0
    [saved] = Path("scores").glob("*.json")
    assert 0 <= json.loads(saved.read_text())["miou"] <= 1
    assert main(["evaluate", "masks", *model, "--preset", "maskclip", "--output", "of_clip"]) == 0
    output = capsys.readouterr()
    assert OTHER_TOWER in output.out + output.err
    [saved] = Path("of_clip").glob("*.json")
    assert OTHER_TOWER in json.loads(saved.read_text())["warnings"]
    assert main([*line, "--output", "run"]) == 0
    assert "3" in capsys.readouterr().err


def test_models_lists_the_towers_at_hand(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--towers", "--runs", ".", "--json"]) == 0
    rows = {row["tower"]: row for row in json.loads(capsys.readouterr().out)}
    vision, text = line[line.index("--vision") + 1], line[line.index("--text") + 1]
    assert {vision, text} <= set(rows)
    assert rows[vision]["part"] == ("both" if vision == text else "vision")
    assert rows[text]["part"] == "both"
    assert rows[vision]["licence"] == "Apache-2.0"
    assert "any stride" in rows[vision]["can do"]


def test_two_processes_and_a_resumed_run_train_what_one_trains(line: list[str]) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == 2:
            raise RuntimeError("killed")

    assert main([*line, "--output", "one"]) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    subprocess.run(
        [*launcher, "-m", "pacl", *line, "--output", "two"],
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    config = TrainConfig(
        data=Path("data"),
        output=Path("parts"),
        vision=line[line.index("--vision") + 1],
        text=line[line.index("--text") + 1],
        batch_size=6,
        steps=3,
        precision="fp32",
        checkpoint_every=1,
        probe_every=0,
    )
    with pytest.raises(RuntimeError, match="killed"):
        train(config, progress=stop)
    assert main([*line, "--output", "parts"]) == 0
    one, two, parts = (pacl.load(run, device="cpu").pacl for run in ("one", "two", "parts"))
    assert parts.fingerprint == one.fingerprint
    for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
