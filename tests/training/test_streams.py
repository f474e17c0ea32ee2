"""Training from tars: the same batches whatever reads them, and bad samples replaced, not fatal."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pacl.data import tars
from pacl.errors import InputError
from pacl.runtime import distributed
from pacl.training.config import TrainConfig
from pacl.training.feed import StreamFeed
from pacl.training.setup import prepare
from pacl.training.train import Progress, train
from training_runs import read_metrics, write_pairs

pytestmark = pytest.mark.slow

N_SHARDS, N_EACH = 4, 6


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "RETRIES_S", (0.0,))


def write_tars(folder: Path, *, damaged: frozenset[int] = frozenset()) -> Path:
    """The images of `write_pairs` in tars; some are cut short."""
    pairs = write_pairs(folder / "pairs", n_images=N_SHARDS * N_EACH)
    texts: dict[str, str] = {}
    for line in (pairs / "captions.csv").read_text().splitlines()[1:]:
        name, text = line.split(",")
        texts[name] = texts.get(name, "") + text + "\n"
    for shard in range(N_SHARDS):
        with tarfile.open(folder / f"{shard:02d}.tar", "w") as tar:
            for number in range(shard * N_EACH, (shard + 1) * N_EACH):
                name = f"images/{number}.png"
                content = (pairs / name).read_bytes()
                content = content[: len(content) // 2] if number in damaged else content
                for suffix, part in (("png", content), ("txt", texts[name].encode())):
                    member = tarfile.TarInfo(f"{number:04d}.{suffix}")
                    member.size = len(part)
                    tar.addfile(member, io.BytesIO(part))
    return folder


@pytest.fixture(scope="module")
def tars_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tars(tmp_path_factory.mktemp("tars"), damaged=frozenset({7, 8}))


@pytest.fixture
def config(config: TrainConfig, tars_dir: Path) -> TrainConfig:
    return replace(config, data=tars_dir / "{00..03}.tar", batch_size=5, steps=7)


def read_replaced(config: TrainConfig) -> list[dict[str, Any]]:
    lines = (config.output / "replaced.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def keys(config: TrainConfig) -> list[list[str]]:
    feed = prepare(config.resolve(), on_encoded=None).feed
    assert isinstance(feed, StreamFeed)
    return [list(batch.names()) for batch in feed.iter_batches(0, 7)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_keys_do_not_depend_on_processes_and_threads(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, world: int, workers: int
) -> None:
    expected = keys(config)
    assert len({key for batch in expected[:4] for key in batch}) >= 18
    monkeypatch.setattr(distributed, "gather_values", lambda own: [own])
    parts = []
    for number in range(world):
        bounds = [5 * k // world for k in range(world + 1)]
        share = slice(bounds[number], bounds[number + 1])
        with monkeypatch.context() as patch:
            patch.setattr(distributed, "own_share", lambda n, *, together, share=share: share)
            feed = prepare(replace(config, workers=workers).resolve(), on_encoded=None).feed
        parts.append([list(batch.names()) for batch in feed.iter_batches(0, 7)])
    assert [list(chain(*of_ranks)) for of_ranks in zip(*parts, strict=True)] == expected


@pytest.mark.parametrize("changes", [{}, {"cache": "memory"}, {"objective": "clip"}])
def test_damaged_samples_are_replaced_and_listed(
    config: TrainConfig, changes: dict[str, Any]
) -> None:
    done = train(replace(config, **changes))
    assert done.steps == 7
    found = read_replaced(config)
    assert {line["name"] for line in found} == {"01.tar: 0007.png", "01.tar: 0008.png"}
    assert {line["stand_in"] for line in found} == {"01.tar: 0009.png"}
    assert all("truncated" in line["why"] for line in found)
    assert any("neighbours took their places" in note for note in done.notes)
    assert read_metrics(config)[-1]["loss"] == done.loss


def test_a_stopped_run_resumes_to_the_bit(config: TrainConfig, tmp_path: Path) -> None:
    def stop(state: Progress) -> None:
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    parts = replace(config, output=tmp_path / "parts")
    train(config)
    assert train(parts, progress=stop).steps == 3
    train(replace(parts, workers=1))
    first, second = (load_file(c.output / "last" / "trainer.safetensors") for c in (config, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read_replaced(config) == read_replaced(parts)


def test_a_missing_shard_is_replaced_and_other_data_refused(
    clip_dir: Path, config: TrainConfig, tmp_path: Path
) -> None:
    folder = write_tars(tmp_path / "own")
    config = replace(config, data=folder / "{00..03}.tar")

    def stop(state: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    train(config, progress=stop)
    (folder / "02.tar").unlink()
    assert train(config).steps == 7, "its index is there: the order is the same"
    lost = [line for line in read_replaced(config) if line["name"].startswith("02.tar")]
    assert lost
    assert all("02.tar cannot be read" in line["why"] for line in lost)
    (folder / "02.tar.pacl-index").unlink()
    assert "no such tar" in prepare(config.resolve(), on_encoded=None).notes()[0]
    train(replace(config, output=tmp_path / "other"), progress=stop)
    (folder / "01.tar").unlink()
    (folder / "01.tar.pacl-index").unlink()
    with pytest.raises(InputError, match="other data"):
        train(replace(config, output=tmp_path / "other"))


def test_a_checkpoint_keeps_the_words_of_a_stream(config: TrainConfig) -> None:
    objective = prepare(config.resolve(), on_encoded=None).objective
    assert {"house", "boat", "tree", "car"} <= set(objective.model.words)  # type: ignore[attr-defined]


def test_a_table_of_captions_feeds_the_steps(config: TrainConfig, tmp_path: Path) -> None:
    table = tmp_path / "new.jsonl"
    records = [{"key": f"{k:04d}", "caption": f"a zebra {k}"} for k in range(N_SHARDS * N_EACH)]
    table.write_text("\n".join(map(json.dumps, records)))
    config = replace(config, recaptions=table).resolve()
    setup = prepare(config, on_encoded=None)
    batch = next(setup.feed.iter_batches(0, 7))
    assert all(text.startswith("a zebra") for text in batch.table.texts[: batch.table.n_captions])
    assert "24 captions of 24 keys" in setup.notes()[0]
    other = prepare(replace(config, recaptions_mode="add"), on_encoded=None)
    assert other.data_fingerprint != setup.data_fingerprint
