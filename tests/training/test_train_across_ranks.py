"""Training on several processes: the run of one process, whatever the batch is divided into."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed
from torch.multiprocessing.spawn import spawn

from pacl.data.pairs import read_pairs
from pacl.errors import InputError
from pacl.modeling.towers.hf import HfClip
from pacl.training import checkpoint, run_data
from pacl.training import setup as training_setup
from pacl.training import token_cache as cache
from pacl.training.config import TrainConfig
from pacl.training.train import Progress, train
from training_runs import read_metrics, write_pairs

WORLD = 3
"""Shares of the batch of 5 are 1, 2 and 2 images."""


STOP_AFTER = 2
CASES: dict[str, dict[str, Any]] = {
    "in memory": {},
    "on disk": {"cache": "disk"},
    "in the step": {"cache": "none", "augment": "crop"},
    "decoded in the step, no nouns": {
        "cache": "none",
        "augment": "flip",
        "cache_images_gb": 0.0,
        "noun_weight": 0.0,
    },
    "some patches": {"patches_per_image": 3},
    "own caption": {"pooling": "own-caption"},
    "false negatives": {"false_negatives": "nouns"},
    "sigmoid, learned null token": {"loss": "sigmoid", "null_token": "learn"},
    "parts": {"images_at_once": 2},
    "interrupted": {},
}


@pytest.fixture(scope="module")
def damaged_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of which one cannot be read."""
    directory = write_pairs(tmp_path_factory.mktemp("damaged"))
    (directory / "images" / "7.png").write_bytes(b"damaged")
    return directory


@pytest.fixture(scope="module")
def make(pairs_dir: Path, clip_dir: Path) -> Callable[..., TrainConfig]:
    """A config of a run in some directory."""

    def make(output: Path, **changes: Any) -> TrainConfig:
        config = TrainConfig(
            data=pairs_dir,
            output=output,
            model=str(clip_dir),
            batch_size=5,
            steps=6,
            log_every=1,
            probe_every=0,
            precision="fp32",
            device="cpu",
        )
        return replace(config, **changes)

    return make


@pytest.fixture(scope="module")
def together(
    make: Callable[..., TrainConfig], damaged_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TrainConfig]:
    """Each case, trained by three processes."""
    directory = tmp_path_factory.mktemp("together")
    configs = {name: make(directory / name, **changes) for name, changes in CASES.items()}
    for name in ("in memory", "on disk", "in the step"):
        configs[name] = replace(configs[name], data=damaged_dir)
    spawn(on_a_rank, (str(directory / "store"), configs), nprocs=WORLD)
    return configs


def on_a_rank(number: int, store: str, configs: dict[str, TrainConfig]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=number, world_size=WORLD
    )
    for name, config in configs.items():

        def interrupt(state: Progress, name: str = name) -> None:
            if (name, state.step, number) == ("interrupted", STOP_AFTER, WORLD - 1):
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)  # the terminal's and the launcher's

        result = train(config, progress=interrupt)
        assert result.is_stopped == (name == "interrupted")
    distributed.destroy_process_group()


def assert_same_run(ours: TrainConfig, theirs: TrainConfig) -> None:
    """Weights, moments and metrics but for rounding."""
    for name in ("embedder.safetensors", "trainer.safetensors"):
        first, second = (load_file(c.output / "last" / name) for c in (ours, theirs))
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    clock = {"images_per_s", "eta_s"}
    for mine, other in zip(read_metrics(ours), read_metrics(theirs), strict=True):
        kept = mine.keys() - clock
        assert {k: mine[k] for k in kept} == pytest.approx({k: other[k] for k in kept}, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name != "interrupted"])
def test_processes_together_equal_one(
    name: str, together: dict[str, TrainConfig], tmp_path: Path
) -> None:
    alone = replace(together[name], output=tmp_path / "alone")
    train(alone)
    assert_same_run(together[name], alone)


@pytest.mark.slow
def test_parts_do_not_show_how_many_processes_share_them(
    together: dict[str, TrainConfig], tmp_path: Path
) -> None:
    """To the bit in float32; the logit scale, in float64, to its rounding."""
    alone = replace(together["parts"], output=tmp_path / "alone")
    train(alone)
    first, second = (
        load_file(c.output / "last" / "trainer.safetensors") for c in (alone, together["parts"])
    )
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        if tensor.dtype == torch.float32:
            assert torch.equal(tensor, second[name]), name
        else:
            torch.testing.assert_close(tensor, second[name], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_a_signal_to_one_stops_all_and_one_process_goes_on(
    together: dict[str, TrainConfig], tmp_path: Path
) -> None:
    parts = together["interrupted"]
    assert len(read_metrics(parts)) == STOP_AFTER
    alone = replace(parts, output=tmp_path / "alone")
    train(alone)
    train(parts)
    assert_same_run(parts, alone)


def test_processes_that_see_different_outputs_are_refused(
    make: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.distributed, "gather_values", lambda own: [own, 6])
    with pytest.raises(InputError, match=r"(?s)do not see the same .*last.*None, 6"):
        train(make(tmp_path))


def test_tokens_that_only_the_first_process_sees_are_refused(
    clip_dir: Path, pairs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.distributed, "rank", lambda: 1)
    monkeypatch.setattr(cache, "fill_token_store", lambda *_, **__: None)
    encoder, pairs = HfClip.from_pretrained(clip_dir), read_pairs(pairs_dir)
    with pytest.raises(InputError, match=r"(?s)process 1 does not find the tokens.*0 of 1 parts"):
        cache.build_token_cache(cache.TokenEncoder(encoder), pairs, directory=tmp_path)


def test_processes_that_see_different_data_are_refused(
    make: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gather(own: Any) -> list[Any]:
        return [own, "other"] if isinstance(own, str) else [own]

    monkeypatch.setattr(checkpoint.distributed, "gather_values", gather)
    with pytest.raises(InputError, match=r"(?s)not see the same data and CLIP.*process 1: other"):
        train(make(tmp_path))


def test_unreadable_images_leave_a_process_without_any(
    make: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write_pairs(tmp_path / "pairs", n_images=WORLD)
    (pairs / "images" / "1.png").write_bytes(b"damaged")
    config = make(tmp_path, data=pairs, cache="none").resolve()
    monkeypatch.setattr(training_setup.distributed, "world_size", lambda: WORLD)
    monkeypatch.setattr(training_setup.distributed, "wait_for_all", lambda: None)
    monkeypatch.setattr(training_setup.distributed, "gather_values", lambda own: [own])
    with pytest.raises(InputError, match="3 processes share batches of 2 images"):
        training_setup.prepare(config, on_encoded=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "clip"}, "the clip objective trains on one process"),
        ({"batch_size": 2}, "3 processes share batches of 2 images"),
    ],
)
def test_what_processes_cannot_share_is_named(
    make: Callable[..., TrainConfig],
    changes: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training_setup.distributed, "world_size", lambda: WORLD)
    monkeypatch.setattr(training_setup.distributed, "wait_for_all", lambda: None)
    with pytest.raises(InputError, match=message):
        training_setup.prepare(make(tmp_path, **changes).resolve(), on_encoded=None)


@pytest.mark.parametrize(
    ("batch_size", "at_once", "expected"), [(5, 2, slice(2, 4)), (7, 4, slice(2, 4))]
)
def test_images_at_once_stay_together_unless_a_process_would_have_none(
    make: Callable[..., TrainConfig],
    batch_size: int,
    at_once: int,
    expected: slice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training_setup.distributed, "world_size", lambda: WORLD)
    monkeypatch.setattr(training_setup.distributed, "rank", lambda: 1)
    config = make(tmp_path, images_at_once=at_once)
    assert run_data._own_share(config, batch_size=batch_size) == expected


def test_a_process_without_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_setup.distributed, "world_size", lambda: WORLD)
    monkeypatch.setattr(training_setup.distributed, "wait_for_all", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert training_setup.find_device("cuda") == torch.device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match=r"(?s)process 2 finds no GPU.*--nproc-per-node 2"):
        training_setup.find_device("cuda")


@pytest.mark.parametrize(
    ("visible", "name", "expected"), [(1, "cuda", 0), (4, "cuda", 2), (4, "cuda:3", 3)]
)
def test_which_gpu_a_process_gets(
    visible: int, name: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_setup.distributed, "world_size", lambda: WORLD)
    monkeypatch.setattr(training_setup.distributed, "wait_for_all", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert training_setup.find_device(name) == torch.device("cuda", expected)


@pytest.mark.slow
def test_the_launchers_command(make: Callable[..., TrainConfig], tmp_path: Path) -> None:
    """As documented: one report, and the same checkpoint as without a launcher."""
    config = make(tmp_path / "together")
    options = ["--data", config.data, "--model", config.model, "--output", config.output]
    options += ["--batch-size", "5", "--steps", "6", "--log-every", "1", "--probe-every", "6"]
    options += ["--precision", "fp32", "--device", "cpu"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launcher, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*command, "-m", "pacl", "train", *map(str, options)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint:") == 1
    assert "2 processes share every batch" in done.stderr
    alone = replace(config, output=tmp_path / "alone")
    train(alone)
    assert_same_run(config, alone)
