"""Options of the objective: poolings, null token, losses, false negatives, patches per image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pacl.errors import InputError
from pacl.modeling.pacl import Pacl
from pacl.text.nouns import extract_nouns
from pacl.training import objectives
from pacl.training.batches import find_false_negatives, number_texts, sample_patches
from pacl.training.config import TrainConfig
from pacl.training.train import noun_weight, train
from training_runs import read_metrics

pytestmark = pytest.mark.slow

VARIANTS: list[dict[str, Any]] = [
    {"pooling": "mean"},
    {"pooling": "max"},
    {"pooling": "sparse"},
    {"pooling": "own-caption"},
    {"null_token": "learn"},
    {"loss": "sigmoid"},
    {"false_negatives": "nouns"},
    {"noun_weight_end": 1.0},
    {"patches_per_image": 3},
    {"patches_per_image": 3, "cache": "none"},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_option_resumes_to_the_same_bits_and_changes_the_run(
    changes: dict[str, Any], config: TrainConfig, tmp_path: Path
) -> None:
    whole = replace(config, output=tmp_path / "whole", **changes)
    train(whole)
    stopped = replace(config, output=tmp_path / "stopped", checkpoint_every=2, **changes)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, progress=stop_after(2))
    train(stopped)
    first, second = (load_file(c.output / "last/trainer.safetensors") for c in (whole, stopped))
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    plain = replace(config, output=tmp_path / "plain", cache=whole.cache)
    train(plain)
    of_plain = load_file(plain.output / "last/embedder.safetensors")
    ours = load_file(whole.output / "last/embedder.safetensors")
    assert any(not torch.equal(ours[name], of_plain[name]) for name in ours)


def stop_after(step: int) -> Callable[[Any], None]:
    def callback(state: Any) -> None:
        if state.step == step:
            raise KeyboardInterrupt

    return callback


def test_what_was_trained_is_kept(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, pooling="mean"))
    assert Pacl.from_pretrained(config.output / "last").pooling == "mean"
    learned = replace(config, output=tmp_path / "null", null_token="learn")
    train(learned)
    null = Pacl.from_pretrained(learned.output / "last").null_similarity
    assert null == load_file(learned.output / "last/trainer.safetensors")["weight/null_similarity"]
    assert null != 0


def test_the_sigmoid_loss_starts_at_its_own_scale_and_learns_its_bias(config: TrainConfig) -> None:
    train(replace(config, loss="sigmoid"))
    assert read_metrics(config)[0]["logit_scale"] == pytest.approx(20, rel=0.01)
    bias = load_file(config.output / "last/trainer.safetensors")["weight/logit_bias"]
    assert bias == pytest.approx(-10, abs=0.1)
    assert bias != -10


def test_false_negatives_are_equal_captions_or_those_whose_nouns_are_named() -> None:
    captions = [["a boat near a house"], ["a boat"], ["a boat"], ["it is late", "two trees"]]
    table = number_texts(captions, templates=("{}.",), extract_nouns=extract_nouns)
    ids = np.array([of[0] for of in table.captions_of_image])
    equal = find_false_negatives(table, np.arange(4), ids, by_nouns=False)
    expected = torch.eye(4, dtype=torch.bool)
    expected[1, 2] = expected[2, 1] = True
    assert torch.equal(equal, expected)
    expected[0, 1] = expected[0, 2] = True  # a caption without a noun fits nobody else
    assert torch.equal(find_false_negatives(table, np.arange(4), ids, by_nouns=True), expected)


def test_patches_of_a_step_depend_on_seed_and_step_alone() -> None:
    drawn = sample_patches(5, 20, 6, seed=1, step=3)
    assert drawn.shape == (5, 6)
    assert (drawn.diff(dim=1) > 0).all()
    assert torch.equal(drawn, sample_patches(5, 20, 6, seed=1, step=3))
    assert not torch.equal(drawn, sample_patches(5, 20, 6, seed=1, step=4))
    assert not torch.equal(drawn, sample_patches(5, 20, 6, seed=2, step=3))
    assert torch.equal(sample_patches(2, 4, 9, seed=0, step=0), torch.arange(4).expand(2, 4))


def test_each_step_draws_patches_of_its_own(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def note(*sizes: int, **settings: int) -> torch.Tensor:
        drawn.append(sample_patches(*sizes, **settings))
        return drawn[-1]

    monkeypatch.setattr(objectives, "sample_patches", note)
    train(replace(config, patches_per_image=3))
    assert len(drawn) == config.steps == 3
    for step, kept in enumerate(drawn):  # of the batch's 6 images, 16 patches each
        assert torch.equal(kept, sample_patches(6, 16, 3, seed=config.seed, step=step))


def test_the_noun_weight_runs_along_a_line(config: TrainConfig) -> None:
    falling = replace(config, noun_weight=10.0, noun_weight_end=1.0)
    assert [noun_weight(step, 4, falling) for step in range(4)] == [10, 7, 4, 1]
    assert noun_weight(3, 4, config) == config.noun_weight


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "clip", "trainable": "", "pooling": "mean"}, "pooling: the clip objective"),
        ({"pooling": "max", "null_token": "zero"}, "null_token: max pooling has no softmax"),
        ({"noun_weight": 0.0, "false_negatives": "nouns"}, "noun_weight: at 0 no nouns"),
        ({"patches_per_image": 0}, "patches_per_image: 0 is out of range"),
    ],
)
def test_options_that_exclude_each_other_are_refused(
    changes: dict[str, Any], message: str, config: TrainConfig
) -> None:
    with pytest.raises(InputError, match=message):
        replace(config, **changes).resolve()
