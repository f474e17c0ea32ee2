"""Some images at a time give the step of the whole batch, not of small batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoints import write_clip
from pacl.errors import InputError
from pacl.training.config import TrainConfig
from pacl.training.train import train
from training_runs import read_metrics, write_pairs

pytestmark = pytest.mark.slow

# Adam divides by the gradient's size, so where a gradient is zero but for rounding (the bias of
# attention's keys) it would magnify the rounding; eps is above that.
CLIP = {"objective": "clip", "lr": 1e-4, "eps": 1e-3}
CASES: dict[str, dict[str, Any]] = {
    "cached": {},
    "encoded in the step": {"cache": "none", "augment": "crop"},
    "clip": CLIP | {"augment": "crop"},
    "vision alone": CLIP | {"trainable": "vision"},
    "text alone": CLIP | {"trainable": "text"},
    "heads on both sides": {"head": "both", "null_token": "learn"},
    "own caption, sigmoid": {"pooling": "own-caption", "loss": "sigmoid"},
    "some patches": {"patches_per_image": 5},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("data")
    return TrainConfig(
        data=write_pairs(folder / "pairs", n_images=12),
        model=str(write_clip(folder / "clip")),
        output=folder / "run",
        batch_size=12,
        steps=4,
        log_every=1,
        probe_every=0,  # drawing a sheet after each step takes longer than the steps
        precision="fp32",
        device="cpu",
    )


def assert_same(ours: TrainConfig, theirs: TrainConfig) -> None:
    first, second = (load_file(c.output / "last" / "trainer.safetensors") for c in (ours, theirs))
    assert first.keys() == second.keys()
    weights = [name for name in first if name.startswith("weight/")]
    for name in weights:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-6)
    lines = [[line["loss"] for line in read_metrics(c)] for c in (ours, theirs)]
    assert lines[0] == pytest.approx(lines[1], rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_parts_equal_the_whole_after_four_steps(
    made: TrainConfig, tmp_path: Path, case: str
) -> None:
    whole = replace(made, output=tmp_path / "whole", **CASES[case])
    parts = replace(whole, output=tmp_path / "parts", images_at_once=5)
    train(whole)
    train(parts)
    assert_same(whole, parts)


def test_4_times_64_equal_256(made: TrainConfig, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs", n_images=256)
    whole = replace(made, data=data, batch_size=256, steps=10, output=tmp_path / "whole")
    parts = replace(whole, output=tmp_path / "parts", images_at_once=64)
    train(whole)
    train(parts)
    assert_same(whole, parts)


def test_patches_dropped_for_a_whole_batch_are_refused(made: TrainConfig) -> None:
    config = replace(made, images_at_once=2, objective="clip", keep_patches=0.5)
    with pytest.raises(InputError, match="drawn for the whole batch"):
        config.resolve()
