"""Following a run: looking changes nothing, and the best checkpoint is kept exactly."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pacl.cli import COMMANDS
from pacl.cli.options import parse_options
from pacl.errors import InputError
from pacl.modeling.card import _nested
from pacl.modeling.names import find_source
from pacl.modeling.pacl import Pacl
from pacl.training.config import TrainConfig
from pacl.training.held_out import Masks
from pacl.training.train import Progress, TrainResult, train
from training_runs import read_metrics, write_pairs

pytestmark = pytest.mark.slow

CLIP = {"objective": "clip", "trainable": "all"}


@pytest.fixture
def config(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    held_out = write_pairs(tmp_path_factory.mktemp("held_out"), n_images=7)
    return replace(config, steps=6, val=str(held_out), val_every=2)


def weights(config: TrainConfig, name: str = "last") -> dict[str, torch.Tensor]:
    paths = sorted((config.output / name).glob("*.safetensors"))
    return {f"{path.name} {key}": v for path in paths for key, v in load_file(path).items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def held_out_lines(config: TrainConfig) -> list[dict[str, Any]]:
    lines = (config.output / "held_out.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("changes", [{}, CLIP], ids=["pacl", "clip"])
def test_looking_changes_nothing_that_is_trained(
    config: TrainConfig, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = replace(config, probe_every=3, **changes)
    blind = replace(config, output=tmp_path / "blind", val=None, probe_every=0)
    news: list[str] = []
    done = train(config, progress=lambda state: news.extend(state.news))
    train(blind)
    assert same(weights(config), weights(blind))
    assert [path.name for path in sorted((config.output / "probe").iterdir())] == [
        f"step-{step:06d}.png" for step in (0, 3, 6)
    ]
    assert not (blind.output / "probe").exists()
    assert [line["step"] for line in held_out_lines(config)] == [0, 2, 4, 6]
    assert sum("held-out retrieval" in sentence for sentence in news) == 4
    assert "among 7 first" in done.meaning[-1]


def crash_at(step: int) -> Callable[[Progress], None]:
    def crash(state: Progress) -> None:
        if state.step == step:
            raise MemoryError

    return crash


def test_the_best_checkpoint_is_kept_and_survives_a_crash(
    config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(config, lr=0.02, checkpoint_every=3)
    parts = replace(config, output=tmp_path / "parts")
    done = train(config)
    for step in (1, 5):  # before the first checkpoint, and after it
        with pytest.raises(MemoryError):
            train(parts, progress=crash_at(step))
    train(parts)
    lines = held_out_lines(config)
    assert held_out_lines(parts) == lines
    assert same(weights(parts, "best"), weights(config, "best"))
    best = max(lines, key=lambda line: line["score"])
    assert f"best at step {best['step']}," in (done.best or "")
    facts = json.loads((config.output / "best" / "config.json").read_text(encoding="utf-8"))
    assert facts["training"]["step"] == best["step"]
    assert find_source(config.output) == config.output / "best"
    assert Pacl.from_pretrained(config.output / "best").has_embedder


def test_a_best_that_is_not_kept_up_is_named(config: TrainConfig) -> None:
    with pytest.raises(MemoryError):
        train(replace(config, checkpoint_every=3), progress=crash_at(4))
    assert "is of earlier steps with --val" in (train(replace(config, val=None)).best or "")


def test_scores_on_other_data_are_not_compared(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        train(replace(config, checkpoint_every=3), progress=crash_at(4))
    path = config.output / "held_out.jsonl"
    lines = [line | {"score": 2.0} for line in held_out_lines(config)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    other = str(write_pairs(tmp_path / "other", n_images=5))
    done = train(replace(config, val=other))
    assert "best at step 4" in (done.best or "") or "best at step 6" in (done.best or "")


def test_masks_score_by_miou(config: TrainConfig, tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(2):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        mask = Image.fromarray(rng.integers(0, 2, (32, 32), dtype=np.uint8))
        mask.save(folder / "masks" / f"{number}.png")
    (folder / "classes.txt").write_text("house\nboat\n", encoding="utf-8")
    train(replace(config, val=str(folder)))
    lines = held_out_lines(config)
    assert len(lines) == 4
    assert all(line["score"] == line["figures"]["mIoU"] for line in lines)
    assert "2 classes on 2 images" in lines[0]["sentence"]
    (folder / "images" / "1.png").rename(folder / "images" / "2.png")
    (folder / "masks" / "1.png").rename(folder / "masks" / "2.png")
    assert Masks(str(folder)).fingerprint != lines[0]["data"], "as many images, and not the same"


def test_the_card_says_how_to_train_it_again(config: TrainConfig) -> None:
    done = train(config)
    card = (config.output / "card.md").read_text(encoding="utf-8")
    assert card == (config.output / "last" / "card.md").read_text(encoding="utf-8")
    assert (config.output / "best" / "card.md").is_file()
    encoder = Pacl.from_pretrained(done.checkpoint_dir).encoder
    assert encoder.fingerprint in card
    assert "24 captions of 12 images" in card
    assert _nested("  line 3: twice") == "  - line 3: twice"
    assert "6 of 6 steps" in card
    assert all(sentence in card for sentence in done.meaning)
    [command] = [line for line in card.splitlines() if line.startswith("pacl train")]
    train_command = COMMANDS["train"]
    again = parse_options(
        train_command.options,
        name="train",
        words=shlex.split(command)[2:],
        examples=train_command.examples,
    )
    assert again == config.resolve()


def test_words_and_images_of_ones_own(config: TrainConfig, pairs_dir: Path) -> None:
    given = (str(pairs_dir / "images" / "3.png"), str(pairs_dir / "images" / "4.png"))
    config = replace(config, val=None, probe_every=6, probe_images=given, probe_words="boat,tree")
    train(config)
    with Image.open(config.output / "probe" / "step-000006.png") as sheet:
        assert sheet.width > 4 * 180, "image, regions and a map of each word"
    with pytest.raises(InputError, match="nowhere"):
        train(replace(config, output=config.output / "b", probe_images=("nowhere.png",)))


# ---- other loggers ------------------------------------------------------------------------------


class _Run:
    """What wandb.init returns; it fails where it is told to."""

    def __init__(self, fails_at: str) -> None:
        self.fails_at = fails_at
        self.logged: list[tuple[int, dict[str, Any]]] = []

    def _fail(self, where: str) -> None:
        if self.fails_at == where:
            raise OSError(f"no network while it should {where}")

    def log(self, values: dict[str, Any], step: int) -> None:
        if step >= 2:
            self._fail("log")
        self.logged.append((step, values))

    def finish(self) -> None:
        self._fail("finish")


def run_with_wandb(
    config: TrainConfig, fails_at: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[TrainResult, _Run]:
    run = _Run(fails_at)
    wandb = ModuleType("wandb")

    def init(**settings: Any) -> _Run:
        run._fail("init")
        assert settings["resume"] == "allow"
        json.dumps(settings["config"])
        return run

    wandb.init = init  # type: ignore[attr-defined]
    wandb.Image = lambda path: Path(path).name  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return train(replace(config, probe_every=6, log=("wandb",))), run


@pytest.mark.parametrize("fails_at", ["init", "log", "finish", "never"])
def test_a_failing_logger_never_stops_a_run(
    config: TrainConfig, fails_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, run = run_with_wandb(config, fails_at, monkeypatch)
    assert (done.steps, len(read_metrics(config))) == (6, 6)
    notes = [note for note in done.notes if "wandb failed" in note]
    assert len(notes) == (fails_at != "never")
    assert all(f"should {fails_at}" in note for note in notes)
    if fails_at == "never":
        logged = {name for _, values in run.logged for name in values}
        assert {"loss", "probe", "held out/text to image R@1"} <= logged
        assert [step for step, values in run.logged if "loss" in values] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_missing_logger_is_named_with_its_remedy(
    config: TrainConfig, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (name, "torch.utils.tensorboard.writer"):
        monkeypatch.setitem(sys.modules, module, None)
    done = train(replace(config, val=None, log=(name,)))
    assert done.steps == 6
    assert any(f"pip install {name}" in note for note in done.notes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_was_written(config: TrainConfig) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = replace(config, log=("tensorboard",), checkpoint_every=3, probe_every=3)
    with pytest.raises(MemoryError):
        train(config, progress=crash_at(5))
    train(config)
    events = EventAccumulator(str(config.output / "tensorboard"))
    events.Reload()
    shown = {event.step: event.value for event in events.Scalars("loss")}
    lines = read_metrics(config)
    assert shown == {line["step"]: pytest.approx(line["loss"]) for line in lines}
    assert [event.step for event in events.Images("probe")] == [0, 3, 6]
