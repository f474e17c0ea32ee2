"""pacl data cache, index and convert: what they write serves pacl train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from checkpoints import write_clip
from pacl.cli import main
from pacl.training import token_store
from training_runs import write_pairs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pairs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "last" / "trainer.safetensors")


def test_a_cache_of_several_parts_serves_training(
    pairs_dir: Path,
    clip_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(token_store, "SHARD_ROWS", 5)
    tower = ["--model", str(clip_dir), "--device", "cpu"]
    line = ["data", "cache", str(pairs_dir), "--output", str(tmp_path / "tokens"), *tower]
    assert main([*line, "--shard", "1/2"]) == 0
    assert "1 of 3 parts are there; others do the rest" in capsys.readouterr().err
    assert main([*line, "--shard", "0/2"]) == 0
    out, err = capsys.readouterr()
    assert "tokens of 12 images" in out
    assert f"next: pacl train --data {pairs_dir} --cache-dir {tmp_path / 'tokens'}" in err
    assert main([*line, "--verify"]) == 0
    assert main([*line, "--shard", "2/2"]) == 2
    assert "--shard 2/2 is not I/N" in capsys.readouterr().err

    train = ["train", "--data", str(pairs_dir), *tower, "--steps", "3", "--batch-size", "4"]
    train += ["--probe-every", "0"]
    assert main([*train, "--output", str(tmp_path / "plain")]) == 0
    monkeypatch.setattr("pacl.training.token_cache.TokenEncoder.__call__", None)
    cached = [*train, "--cache-dir", str(tmp_path / "tokens"), "--output", str(tmp_path / "run")]
    assert main(cached) == 0
    first, second = weights(tmp_path / "plain"), weights(tmp_path / "run")
    assert all(torch.equal(first[name], second[name]) for name in first)

    capsys.readouterr()
    assert main([*cached[:-1], str(tmp_path / "other"), "--token-layer", "-1"]) == 2
    assert "holds a token cache of other settings\n  layer: -4 there, -1 here" in (
        capsys.readouterr().err
    )
    assert main([*train, "--output", str(tmp_path / "x"), "--cache-dir", "y", "--cache", "none"])
    assert "error: cache_dir" in capsys.readouterr().err


def test_index_and_convert_say_what_they_did(
    pairs_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    line = ["data", "convert", str(pairs_dir), "--output", str(small), "--short-side-px", "16"]
    assert main(line) == 0
    out, err = capsys.readouterr()
    assert f"1 of 1 tars in {small}" in out
    assert f"next: pacl train --data {small}" in err
    for words in (["--quality", "0"], ["--short-side-px", "0"], ["--workers", "0"]):
        assert main([*line, *words]) == 2
        assert "0 is out of range" in capsys.readouterr().err
    assert main(["data", "index", str(small), "--workers", "0"]) == 2
    assert "workers: 0 is out of range" in capsys.readouterr().err
    for words, n_built in (([], 1), ([], 0), (["--rebuild"], 1)):
        assert main(["data", "index", str(small), *words]) == 0
        assert f"12 samples in 1 tars; {n_built} indices written" in capsys.readouterr().out
    (small / "00001.tar").write_bytes(b"no tar" * 200)
    assert main(["data", "index", str(small)]) == 1
    assert "error: " in capsys.readouterr().err
    assert main(["data", "index", str(pairs_dir)]) == 2
    assert "no tars in" in capsys.readouterr().err
