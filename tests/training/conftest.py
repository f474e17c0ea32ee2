"""A tiny CLIP, twelve captioned images, and a run on them that takes a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints import write_clip
from pacl.training.config import TrainConfig
from training_runs import write_pairs


@pytest.fixture(scope="module")
def pairs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def config(pairs_dir: Path, clip_dir: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        data=pairs_dir,
        output=tmp_path / "run",
        model=str(clip_dir),
        batch_size=6,
        steps=3,
        log_every=1,
        probe_every=0,  # drawing sheets takes longer than the steps; test_checkups draws them
        precision="fp32",
        device="cpu",
    )
