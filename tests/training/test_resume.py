"""A run that stops, however it stops, goes on to the same bits."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pacl.errors import EnvironmentProblem, InputError, PaclError
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.pacl import Pacl
from pacl.runtime.files import recover, replace_directory
from pacl.training import train as trainer
from pacl.training.config import TrainConfig
from pacl.training.record import cut_metrics
from pacl.training.train import Progress, train
from training_runs import read_metrics, write_pairs

pytestmark = pytest.mark.slow


@pytest.fixture
def config(config: TrainConfig) -> TrainConfig:
    """Epochs that end within a batch, in the precision of this machine."""
    return replace(config, batch_size=5, steps=7, precision="auto")


CLIP = {"objective": "clip", "trainable": "all", "keep_patches": 0.5, "augment": "crop"}
IN_THE_STEP = {"cache": "none", "augment": "flip", "cache_images_gb": 0.0}


def send_at(step: int, number: int) -> Callable[[Progress], None]:
    """A callback that sends this process a signal after a step."""

    def callback(state: Progress) -> None:
        if state.step == step:
            os.kill(os.getpid(), number)

    return callback


def read_tensors(config: TrainConfig) -> dict[str, torch.Tensor]:
    tensors = {}
    for path in sorted((config.output / "last").glob("*.safetensors")):
        tensors |= {f"{path.name}: {name}": value for name, value in load_file(path).items()}
    return tensors


def assert_same_run(ours: TrainConfig, theirs: TrainConfig) -> None:
    """The same bits in all weights and moments, and the same metrics, the clock aside."""
    first, second = read_tensors(ours), read_tensors(theirs)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    clock = {"images_per_s", "eta_s"}
    timeless = [
        [{key: value for key, value in line.items() if key not in clock} for line in lines]
        for lines in (read_metrics(ours), read_metrics(theirs))
    ]
    assert timeless[0] == timeless[1]


# ---- to the bit -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({}, signal.SIGINT),
        ({}, signal.SIGTERM),
        (IN_THE_STEP, signal.SIGINT),
        (CLIP, signal.SIGTERM),
    ],
    ids=["pacl, SIGINT", "pacl, SIGTERM", "in the step", "clip"],
)
def test_interrupted_and_resumed_is_the_same_as_uninterrupted(
    config: TrainConfig, tmp_path: Path, changes: dict, number: int
) -> None:
    whole = replace(config, output=tmp_path / "whole", **changes)
    parts = replace(config, output=tmp_path / "parts", **changes)
    train(whole)
    stopped = train(parts, progress=send_at(3, number))
    assert (stopped.steps, stopped.is_stopped) == (3, True)
    assert stopped.is_terminated == (number == signal.SIGTERM)
    resumed = train(parts)
    assert (resumed.steps, resumed.is_stopped) == (7, False)
    assert_same_run(whole, parts)


def test_a_run_whose_logit_scale_was_float32_resumes(config: TrainConfig) -> None:
    train(config, progress=send_at(3, signal.SIGINT))
    path = config.output / "last" / "trainer.safetensors"
    saved = load_file(path)
    scale = [name for name in saved if name.endswith("/log_logit_scale")]
    assert len(scale) == 4
    save_file(saved | {name: saved[name].float() for name in scale}, path)
    assert train(config).steps == 7
    assert load_file(path)["exp_avg/log_logit_scale"].dtype == torch.float64


def test_a_crash_loses_the_steps_since_the_checkpoint_and_nothing_else(
    config: TrainConfig, tmp_path: Path
) -> None:
    whole = replace(config, output=tmp_path / "whole")
    parts = replace(config, output=tmp_path / "parts", checkpoint_every=2)

    def crash(state: Progress) -> None:
        if state.step == 5:
            raise MemoryError

    train(whole)
    with pytest.raises(MemoryError):
        train(parts, progress=crash)
    assert len(read_metrics(parts)) == 5, "a line was written that the checkpoint does not know"
    assert json.loads((parts.output / "last" / "trainer.json").read_text())["step"] == 4
    train(parts)
    assert_same_run(whole, parts)


def test_signal_handlers_are_given_back(config: TrainConfig) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(replace(config, steps=1))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_interrupt_ends_at_once(config: TrainConfig) -> None:
    def impatient(state: Progress) -> None:
        if state.step == 2:
            # To this thread: sent to the process, two may arrive as one.
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    # Python's own handler, which a shell's background job does not get.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(config, progress=impatient)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_finished_run_has_nothing_to_do(config: TrainConfig) -> None:
    train(config)
    written = (config.output / "last" / "trainer.safetensors").stat().st_mtime_ns
    again = train(config)
    assert again.steps == again.n_steps == 7
    assert math.isnan(again.loss)
    assert any("finished before" in note for note in again.notes)
    assert (config.output / "last" / "trainer.safetensors").stat().st_mtime_ns == written


# ---- another run in the same place -------------------------------------------------------------


def test_other_settings_are_refused_by_name(config: TrainConfig) -> None:
    train(config, progress=send_at(2, signal.SIGINT))
    with pytest.raises(InputError) as caught:
        train(replace(config, lr=1e-3, seed=4))
    assert "lr: 0.0005 there, 0.001 here" in str(caught.value)
    assert "seed: 0 there, 4 here" in str(caught.value)
    assert "batch_size" not in str(caught.value)


def test_settings_that_change_no_weight_may_change(config: TrainConfig) -> None:
    train(config, progress=send_at(2, signal.SIGINT))
    assert train(replace(config, log_every=3, workers=1, cache="disk")).steps == 7


def test_settings_younger_than_the_run_count_as_default(config: TrainConfig) -> None:
    train(config, progress=send_at(2, signal.SIGINT))
    path = config.output / "last" / "trainer.json"
    facts = json.loads(path.read_text())
    del facts["config"]["warmup"]
    path.write_text(json.dumps(facts))
    with pytest.raises(InputError, match="warmup: unset there, 5 here"):
        train(replace(config, warmup=5))
    assert train(config).steps == 7


def test_changed_data_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data")
    config = replace(config, data=data)
    train(config, progress=send_at(2, signal.SIGINT))
    table = data / "captions.csv"
    table.write_text(table.read_text().replace("red", "pink"))
    with pytest.raises(InputError, match="other data"):
        train(config)


def test_a_damaged_checkpoint_is_refused(config: TrainConfig) -> None:
    train(config, progress=send_at(2, signal.SIGINT))
    path = config.output / "last" / "trainer.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be resumed from"):
        train(config)
    (config.output / "last" / "trainer.json").unlink()
    with pytest.raises(InputError, match="not a checkpoint of a training run"):
        train(config)


# ---- when something breaks --------------------------------------------------------------------


def test_nan_stops_names_the_step_and_keeps_the_last_good_state(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(config, output=tmp_path / "whole")
    config = replace(config, checkpoint_every=2)
    train(whole)
    calls = 0

    def breaks_at_step_4(*args, **kwargs) -> torch.Tensor:
        nonlocal calls
        calls += 1  # two losses in each step
        return loss_function(*args, **kwargs) * (math.nan if calls == 7 else 1)

    loss_function = trainer.contrastive_loss_across_ranks
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "contrastive_loss_across_ranks", breaks_at_step_4)
        with pytest.raises(PaclError, match=r"(?s)loss is nan at step 4.*the batch: image \d+, "):
            train(config)
    facts = json.loads((config.output / "last" / "trainer.json").read_text())
    assert facts["step"] == 3, "the steps since the last checkpoint are kept, too"
    assert all(value.isfinite().all() for value in read_tensors(config).values())
    train(config)
    assert_same_run(whole, config)


def test_embeddings_that_are_no_numbers_stop_too(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = VisionEmbedder.forward
    monkeypatch.setattr(VisionEmbedder, "forward", lambda self, x: forward(self, x) * math.nan)
    with pytest.raises(PaclError, match=r"(?s)patch_embeds must be finite.* at step 1\b.*fix: "):
        train(config)


def test_a_gradient_that_is_no_number_stops_too(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def infinite_slope(*args, **kwargs) -> torch.Tensor:
        loss = loss_function(*args, **kwargs)
        return loss + (loss - loss.detach()).abs().sqrt()

    loss_function = trainer.contrastive_loss_across_ranks
    monkeypatch.setattr(trainer, "contrastive_loss_across_ranks", infinite_slope)
    with pytest.raises(PaclError, match="gradient norm is nan at step 1"):
        train(config)


@pytest.mark.parametrize(
    ("changes", "room"),
    [({}, 100), ({}, 6_000), (CLIP, 6_000)],
    ids=["pacl, 100", "pacl, 6000", "clip, 6000"],
)
def test_a_full_disk_keeps_the_checkpoint_before(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict, room: int
) -> None:
    """The disk takes ``room`` more bytes after the first checkpoint."""
    whole = replace(config, output=tmp_path / "whole", **changes)
    config = replace(config, checkpoint_every=3, **changes)
    train(whole)
    left = math.inf
    write = Path.write_bytes

    def write_until_full(path: Path, data: bytes) -> int:
        nonlocal left
        left -= len(data)
        if left < 0:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, data)

    def fill_up(state: Progress) -> None:
        nonlocal left
        left = room if state.step == 3 else left

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_until_full)
        with pytest.raises(EnvironmentProblem, match="No space left"):
            train(config, progress=fill_up)
    facts = json.loads((config.output / "last" / "trainer.json").read_text())
    assert facts["step"] == 3
    assert [path.name for path in config.output.glob(".last*")] == []
    train(config)
    assert_same_run(whole, config)


class Killed(BaseException):
    """Nothing of the program runs after this."""


STEPS_OF_A_REPLACEMENT = 12


@pytest.mark.parametrize("last_call", range(STEPS_OF_A_REPLACEMENT + 1))
def test_a_kill_at_any_moment_leaves_one_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_call: int
) -> None:
    directory = tmp_path / "last"

    def write(text: str) -> Callable[[Path], None]:
        def fill(into: Path) -> None:
            (into / "a").write_text(text)
            (into / "b").write_text(text)

        return fill

    replace_directory(directory, write("old"))
    calls = 0

    def dying(function: Callable) -> Callable:
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > last_call:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for owner, name in (
            (Path, "mkdir"), (Path, "write_text"), (Path, "rename"),
            (os, "fsync"), (shutil, "rmtree"),
        ):  # fmt: skip
            patch.setattr(owner, name, dying(getattr(owner, name)))
        try:
            replace_directory(directory, write("new"))
            outcome = {"new"}
            assert last_call == STEPS_OF_A_REPLACEMENT
        except Killed:
            outcome = {"old", "new"}
    recover(directory)
    texts = {(directory / name).read_text() for name in ("a", "b")}
    assert len(texts) == 1
    assert texts <= outcome
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    replace_directory(directory, write("newer"))
    assert (directory / "a").read_text() == "newer"


def test_metrics_are_cut_at_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    cut_metrics(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    cut_metrics(tmp_path / "missing.jsonl", 0)
    assert not (tmp_path / "missing.jsonl").exists()


def test_an_interrupted_run_can_be_used(config: TrainConfig) -> None:
    result = train(config, progress=send_at(2, signal.SIGINT))
    assert Pacl.from_pretrained(result.checkpoint_dir).has_embedder
