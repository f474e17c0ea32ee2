"""The trainer: which texts a step sees, what it trains, what it leaves alone, what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from checkpoints import write_clip
from pacl.data.images import open_image
from pacl.data.pairs import read_pairs
from pacl.errors import InputError
from pacl.modeling.compatibility import patch_compatibility
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.kernels import tiled
from pacl.modeling.loss import contrastive_loss
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers.hf import HfClip
from pacl.text.nouns import extract_nouns
from pacl.training import feed, objectives, record
from pacl.training import texts as step_texts
from pacl.training import train as train_module
from pacl.training.batches import (
    count_steps_per_epoch,
    number_texts,
    order_texts,
    sample_rows,
    sample_texts,
    torch_stream,
)
from pacl.training.config import TrainConfig
from pacl.training.feed import HeldFeed
from pacl.training.growing_tokens import GrowingTokens
from pacl.training.images import DecodedImages, augment_images
from pacl.training.setup import prepare
from pacl.training.train import Progress, learning_rate_factor, retrieval_accuracy, train
from training_runs import read_metrics, shown, write_pairs

pytestmark = pytest.mark.slow


def read_weights(config: TrainConfig, name: str = "embedder.safetensors") -> dict:
    return load_file(config.output / "last" / name)


# ---- which images and texts -------------------------------------------------------------------


def test_an_epoch_is_a_permutation_and_epochs_differ() -> None:
    rows = [sample_rows(12, 4, seed=3, step=step) for step in range(6)]
    first, second = np.concatenate(rows[:3]), np.concatenate(rows[3:])
    assert sorted(first) == sorted(second) == list(range(12))
    assert list(first) != list(second)


def test_the_last_partial_batch_is_dropped_unless_it_is_the_only_one() -> None:
    assert count_steps_per_epoch(11, 4) == 2
    assert {len(sample_rows(11, 4, seed=0, step=step)) for step in range(8)} == {4}
    assert count_steps_per_epoch(3, 4) == 1
    assert len(sample_rows(3, 4, seed=0, step=5)) == 3


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    forwards = [sample_rows(40, 8, seed=1, step=step) for step in range(20)]
    backwards = [sample_rows(40, 8, seed=1, step=step) for step in reversed(range(20))]
    np.testing.assert_array_equal(forwards, backwards[::-1])
    assert torch.equal(
        torch.rand(3, generator=torch_stream(1, "a", 7)),
        torch.rand(3, generator=torch_stream(1, "a", 7)),
    )
    assert not torch.equal(
        torch.rand(3, generator=torch_stream(1, "a", 7)),
        torch.rand(3, generator=torch_stream(1, "b", 7)),
    )


def test_nouns_are_positive_for_every_image_whose_captions_name_them() -> None:
    captions = [["a red house", "a boat by a house"], ["a boat"], ["two trees"], ["nothing here"]]
    templates = ("a {}.", "art of the {}.")
    table = number_texts(captions, templates=templates, extract_nouns=extract_nouns)
    seen = set()
    for step in range(20):
        batch = sample_texts(table, np.array([2, 0, 1, 3]), seed=0, step=step)
        texts = [table.texts[i] for i in batch.ids]
        drawn, prompts = texts[:4], texts[4:]
        nouns = [prompt.removeprefix("a ").removeprefix("art of the ")[:-1] for prompt in prompts]
        assert nouns == list(dict.fromkeys(nouns))
        assert set(nouns) == {noun for caption in drawn for noun in extract_nouns(caption)}
        for i, row in enumerate([2, 0, 1, 3]):
            named = {noun for caption in captions[row] for noun in extract_nouns(caption)}
            assert [noun in named for noun in nouns] == batch.positives[i].tolist()
            assert drawn[i] in captions[row]
        seen.update(texts)
    assert seen == set(table.texts), "every caption and every template comes up"


def test_without_nouns_the_matrix_has_no_column() -> None:
    table = number_texts([["a"], ["b"]], templates=("a {}.",), extract_nouns=None)
    batch = sample_texts(table, np.array([0, 1]), seed=0, step=0)
    assert batch.positives.shape == (2, 0)
    assert len(batch.ids) == 2


# ---- images -----------------------------------------------------------------------------------


def test_images_from_memory_and_decoded_per_batch_are_the_same(
    pairs_dir: Path, clip_dir: Path
) -> None:
    pairs, encoder = read_pairs(pairs_dir), HfClip.from_pretrained(clip_dir)
    resize = encoder.resize
    kept = DecodedImages(pairs, resize=resize, workers=2, memory_gb=1)
    fresh = DecodedImages(pairs, resize=resize, workers=2, memory_gb=0)
    batches = [np.array(rows) for rows in ([3, 1], [5, 2], [7, 8])]
    for rows, ours, theirs in zip(
        batches, kept.iter_batches(batches), fresh.iter_batches(batches), strict=True
    ):
        assert torch.equal(ours, theirs)
        whole = torch.stack([encoder.prepare(pairs.open_image(row)) for row in rows.tolist()])
        assert torch.equal(encoder.normalise(ours), whole)


def test_flip_mirrors_whole_images_and_crop_keeps_the_range() -> None:
    images = torch.randint(0, 255, (16, 3, 8, 8), dtype=torch.uint8)
    flipped = augment_images(images, "flip", torch_stream(0, "augment", 0))
    is_mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, images, strict=True)]
    is_same = [torch.equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert any(is_mirrored)
    assert any(is_same)
    assert all(a or b for a, b in zip(is_mirrored, is_same, strict=True))
    flat = torch.full((4, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(augment_images(flat, "crop", torch_stream(0, "augment", 0)), flat)
    once, again = (augment_images(images, "crop", torch_stream(0, "a", 1)) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, images)


def test_rows_are_drawn_once_for_images_and_texts(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = prepare(config.resolve(), on_encoded=None)
    drawn: list[int] = []

    def draw(*args: Any, step: int, **others: Any) -> np.ndarray:
        drawn.append(step)
        return sample_rows(*args, step=step, **others)

    monkeypatch.setattr(feed, "sample_rows", draw)
    steps = list(setup.feed.iter_batches(1, setup.n_steps))
    assert drawn == list(range(1, setup.n_steps))
    assert isinstance(setup.feed, HeldFeed)
    images = setup.feed.images
    assert isinstance(images, GrowingTokens)
    for batch in steps:
        assert torch.equal(batch.images, next(images.iter_batches([batch.rows])))


# ---- what a run says --------------------------------------------------------------------------


def test_rates_and_remaining_time_follow_the_clock(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that advances half a second whenever it is read: once per step."""
    ticks = iter(range(1000))
    clock = SimpleNamespace(perf_counter=lambda: 0.5 * next(ticks))
    monkeypatch.setattr(record, "time", clock)
    told: list[train_module.Progress] = []
    done = train(replace(config, log_every=1), progress=told.append)
    lines = read_metrics(config)
    n_batch = round(0.5 * lines[0]["images_per_s"])
    assert n_batch == min(config.batch_size, 12)
    for line, state in zip(lines, told, strict=True):
        assert line["images_per_s"] == state.images_per_s == n_batch / 0.5
        assert line["eta_s"] == state.eta_s == 0.5 * (done.n_steps - line["step"])
        assert line["epoch"] == line["step"] / (12 // n_batch)


def test_the_logit_scale_is_clamped(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train_module.MAX_LOGIT_SCALE == 100
    monkeypatch.setattr(train_module, "MAX_LOGIT_SCALE", 3.0)
    train(replace(config, log_every=1, steps=3, logit_scale_init=50.0))
    first, *later = [line["logit_scale"] for line in read_metrics(config)]
    assert first == pytest.approx(3.0)
    assert max(later) <= 3.0 + 1e-6


# ---- what a step computes ---------------------------------------------------------------------


def test_learning_rate_warms_up_and_follows_a_cosine_to_zero() -> None:
    factors = [learning_rate_factor(step, 12, 2) for step in range(13)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[7] == pytest.approx(0.5)
    assert factors[12] == pytest.approx(0, abs=1e-12)


def test_retrieval_counts_an_equal_caption_as_right() -> None:
    compatibility = torch.tensor([[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [0.9, 0.1, 0.3]])
    assert retrieval_accuracy(compatibility, np.array([4, 4, 5])) == pytest.approx((2 / 3, 2 / 3))
    assert retrieval_accuracy(compatibility, np.array([4, 6, 5])) == pytest.approx((1 / 3, 1 / 3))


@pytest.mark.parametrize("n_kept", [1, 200, 2**28])
def test_chunks_of_the_embedder_change_neither_values_nor_gradients(
    n_kept: int, clip_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectives, "ACTIVATIONS_KEPT", n_kept)
    encoder = HfClip.from_pretrained(clip_dir)
    embedder = VisionEmbedder(encoder.width, encoder.joint_width).double()
    model = Pacl(encoder=encoder, embedder=embedder, patch_temperature=0.2)
    tokens = torch.randn(5, 6, encoder.width, dtype=torch.float64)
    texts = torch.randn(7, encoder.joint_width, dtype=torch.float64)
    ours = objectives.score_tokens(model, tokens, texts)
    whole = patch_compatibility(embedder(tokens), texts, patch_temperature=0.2)
    torch.testing.assert_close(ours, whole, rtol=1e-12, atol=1e-12)
    weights = torch.randn(5, 7, dtype=torch.float64)
    of_ours = torch.autograd.grad((ours * weights).sum(), list(embedder.parameters()))
    of_whole = torch.autograd.grad((whole * weights).sum(), list(embedder.parameters()))
    torch.testing.assert_close(of_ours, of_whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_in_chunks_is_the_run_without(
    precision: str, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the tiled operators, whose results a chunk keeps; bf16: but for its own rounding."""
    monkeypatch.setattr(tiled, "CPU_TILE", 1)
    losses = []
    for n_kept in (2**28, 1):
        monkeypatch.setattr(objectives, "ACTIVATIONS_KEPT", n_kept)
        run = replace(config, output=tmp_path / str(n_kept), precision=precision, steps=3)  # type: ignore[arg-type]
        train(run)
        losses.append([line["loss"] for line in read_metrics(run)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5 if precision == "fp32" else 1e-2)


def test_chunks_embed_twice_and_score_once(clip_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "ACTIVATIONS_KEPT", 1)
    monkeypatch.setattr(tiled, "CPU_TILE", 1)  # a tile for each pair of an image and a text
    calls = {"embedded": 0, "scored": 0}

    def count(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            calls[name] += 1
            return function(*args)

        return counted

    embed, score = VisionEmbedder.forward, tiled._ImageTile.pool_along
    monkeypatch.setattr(VisionEmbedder, "forward", count("embedded", embed))
    monkeypatch.setattr(tiled._ImageTile, "pool_along", count("scored", score))
    encoder = HfClip.from_pretrained(clip_dir)
    model = Pacl(encoder=encoder, embedder=VisionEmbedder(encoder.width, encoder.joint_width))
    tokens, texts = torch.randn(3, 6, encoder.width), torch.randn(7, encoder.joint_width)
    objectives.score_tokens(model, tokens, texts).sum().backward()
    assert calls == {"embedded": 2 * 3, "scored": 3 * 7}


def test_text_table_and_tower_agree(clip_dir: Path) -> None:
    encoder = HfClip.from_pretrained(clip_dir)
    texts = ["a boat", "a red house behind two pine trees", "sky", "a boat near a car"]
    table = step_texts.TextLookup(encoder, texts, np.array([3, 0, 1, 2]))
    tower = step_texts.build_text_encoder(encoder, texts)
    as_needed = step_texts.encode_as_needed(encoder, is_trained=False)
    numbers = np.array([3, 0, 3, 1])
    expected = encoder.encode_texts([texts[i] for i in numbers])
    torch.testing.assert_close(table(texts, numbers), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tower(texts, numbers), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(as_needed(texts, numbers), expected, rtol=1e-5, atol=1e-6)
    trained = step_texts.encode_as_needed(encoder, is_trained=True)
    torch.testing.assert_close(trained(texts, numbers), expected, rtol=1e-5, atol=1e-6)


def test_the_step_texts_lie_together_in_the_order_of_texts() -> None:
    captions = [[f"a {c} {t}", f"a {t} near a {o}"] for c, t, o in shown(40)]
    table = number_texts(captions, templates=("a {}.", "the {}."), extract_nouns=extract_nouns)
    order = order_texts(table, seed=3)
    assert sorted(order) == list(range(len(table.texts)))
    place_of = np.argsort(order)
    for step in range(8):
        rows = sample_rows(40, 5, seed=3, step=step)
        ids = sample_texts(table, rows, seed=3, step=step).ids
        assert place_of[ids[:5]].max() < 2 * 5 * (step + 1)


def test_texts_are_encoded_once_and_alike_whenever_they_are_needed(
    clip_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_texts, "TEXT_GROUP", 4)
    encoder = HfClip.from_pretrained(clip_dir)
    texts = [f"a boat{' and a house' * (k % 5)}" for k in range(14)]
    order = np.random.default_rng(0).permutation(14)
    encoded: list[int] = []
    encode = encoder.encode_tokens

    def count(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        encoded.append(len(ids))
        return encode(ids, mask)

    monkeypatch.setattr(encoder, "encode_tokens", count)
    first, other = (step_texts.TextLookup(encoder, texts, order) for _ in range(2))
    whole = first(texts, np.arange(14))
    assert sum(encoded) == 14
    encoded.clear()
    for number in (13, 2, 7):
        assert torch.equal(other(texts, np.array([number]))[0], whole[number])
    assert sum(encoded) <= 12
    assert torch.equal(other(texts, np.arange(14)), whole)
    assert sum(encoded) == 14


def test_the_first_loss_is_the_formula(config: TrainConfig, pairs_dir: Path) -> None:
    """captions + noun weight × nouns with all their positives, computed here from scratch."""
    config = replace(config, cache="none", steps=1, noun_weight=0.5, patch_temperature=0.3)
    config = replace(config, init="clip", token_layer=-1)
    train(config)
    paths = [pairs_dir / f"images/{i}.png" for i in range(12)]
    captions = [[f"a {c} {t}", f"a {t} near a {o}"] for c, t, o in shown(12)]
    templates = ("itap of a {}.", "a bad photo of the {}.", "a origami {}.")
    templates += ("a photo of the large {}.", "a {} in a video game.", "art of the {}.")
    templates += ("a photo of the small {}.",)
    table = number_texts(captions, templates=templates, extract_nouns=extract_nouns)
    rows = sample_rows(12, 6, seed=0, step=0)
    batch = sample_texts(table, rows, seed=0, step=0)
    assert batch.positives.sum() > len(rows), "several positives for a noun, or there is no test"

    encoder = HfClip.from_pretrained(config.model)
    images = torch.stack([encoder.prepare(open_image(paths[row])) for row in rows])
    tokens, _ = encoder.encode_patches(images)
    patches = encoder.project_patches(tokens)  # init = clip: the untrained embedder is CLIP's own
    embeds = encoder.encode_texts([table.texts[i] for i in batch.ids])
    of_captions = patch_compatibility(patches, embeds[:6], patch_temperature=0.3)
    of_nouns = patch_compatibility(patches, embeds[6:], patch_temperature=0.3)
    loss_captions = contrastive_loss(of_captions, encoder.logit_scale)
    loss_nouns = contrastive_loss(of_nouns, encoder.logit_scale, positives=batch.positives)

    line = read_metrics(config)[0]
    assert line["loss_captions"] == pytest.approx(loss_captions.item(), rel=1e-4)
    assert line["loss_nouns"] == pytest.approx(loss_nouns.item(), rel=1e-4)
    assert line["loss"] == pytest.approx((loss_captions + 0.5 * loss_nouns).item(), rel=1e-4)


# ---- what is trained --------------------------------------------------------------------------


def test_the_frozen_encoder_stays_as_it_is(clip_dir: Path) -> None:
    encoder = HfClip.from_pretrained(clip_dir)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    embedder = VisionEmbedder(encoder.width, encoder.joint_width)
    start = embedder.main_in.weight.clone()
    model = Pacl(encoder=encoder, embedder=embedder)
    model.train()
    images = torch.randn(3, 3, 32, 32)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        tokens, _ = encoder.encode_patches(images)
        texts = encoder.encode_texts(["a boat", "a house", "sky"])
        loss = contrastive_loss(patch_compatibility(model.embed_tokens(tokens), texts), 10.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert not any(module.training for module in encoder.modules())
    assert all(p.grad is None and not p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert not torch.equal(embedder.main_in.weight, start)


def test_a_checkpoint_holds_only_what_was_trained(config: TrainConfig, clip_dir: Path) -> None:
    before = (clip_dir / "model.safetensors").read_bytes()
    result = train(config)
    parts = ("main_in", "main_out", "skip")
    names = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    assert set(read_weights(config)) == names
    trained = {name.split("/")[1] for name in read_weights(config, "trainer.safetensors")}
    assert trained == names | {"log_logit_scale"}
    assert (clip_dir / "model.safetensors").read_bytes() == before
    loaded = Pacl.from_pretrained(result.checkpoint_dir)
    assert loaded.patch_temperature == config.patch_temperature
    assert loaded.logit_scale == pytest.approx(read_metrics(config)[-1]["logit_scale"], rel=1e-6)


@pytest.mark.parametrize("parts", ["vision", "text", "all"])
def test_the_clip_objective_trains_the_named_towers(
    config: TrainConfig, clip_dir: Path, parts: str
) -> None:
    config = replace(config, objective="clip", trainable=parts, steps=2)
    train(config)
    before = load_file(clip_dir / "model.safetensors")
    after = read_weights(config, "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name.split("_")[0] for name in before if not torch.equal(before[name], after[name])}
    towers = {"vision": {"vision", "visual"}, "text": {"text"}}
    expected = towers.get(parts, towers["vision"] | towers["text"]) | {"logit"}
    assert changed == expected
    HfClip.from_pretrained(config.output / "last")


def test_a_directory_without_weights_starts_a_new_clip(config: TrainConfig, tmp_path: Path) -> None:
    recipe = write_clip(tmp_path / "recipe", with_weights=False)
    config = replace(
        config, objective="clip", model=str(recipe), keep_patches=0.5, augment="crop", steps=2
    )
    first = train(config)
    twin = replace(config, output=tmp_path / "twin")
    train(twin)
    ours, theirs = (read_weights(c, "model.safetensors") for c in (config, twin))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert first.loss > 0
    with pytest.raises(InputError):  # the pacl objective cannot do without weights
        train(replace(config, objective="pacl", keep_patches=1.0, augment="none", output=tmp_path))


def test_a_fixed_logit_scale_stays(config: TrainConfig) -> None:
    config = replace(config, logit_scale="fixed", logit_scale_init=20.0)
    train(config)
    assert [line["logit_scale"] for line in read_metrics(config)] == pytest.approx([20.0] * 3)


def test_the_loss_falls(config: TrainConfig) -> None:
    train(replace(config, steps=40, batch_size=12, lr=5e-3))
    losses = [line["loss"] for line in read_metrics(config)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_bfloat16_trains_and_stays_near(config: TrainConfig, tmp_path: Path) -> None:
    half = replace(config, precision="bf16", output=tmp_path / "half", cache="none")
    train(config)
    train(half)
    for ours, theirs in zip(read_metrics(half), read_metrics(config), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.05)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_clip_start_is_the_projection_itself(
    config: TrainConfig, clip_dir: Path, precision: Literal["fp32", "bf16"]
) -> None:
    config = replace(config, precision=precision, init="clip").resolve()
    parameters = prepare(config, on_encoded=None).objective.parameters
    projection = load_file(clip_dir / "model.safetensors")["visual_projection.weight"]
    assert torch.equal(parameters["skip.weight"], projection)
    assert not parameters["main_out.weight"].any()
    assert parameters["main_in.weight"].any()


def test_caches_agree(config: TrainConfig, tmp_path: Path) -> None:
    disk = replace(config, cache="disk", output=tmp_path / "disk")
    none = replace(config, cache="none", output=tmp_path / "none", cache_images_gb=0.0)
    for each in (config, disk, none):
        train(each)
    ours, from_disk, direct = (read_weights(each) for each in (config, disk, none))
    assert all(torch.equal(ours[name], from_disk[name]) for name in ours)
    for name in ours:
        torch.testing.assert_close(ours[name], direct[name], rtol=0, atol=2e-3)


def test_masks_are_never_read(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights with masks beside the images, with broken ones, and without any."""
    data = write_pairs(tmp_path / "with_masks")
    (data / "masks").mkdir()
    for i in range(12):
        (data / "masks" / f"{i}.png").write_bytes(b"not a mask")

    def refuse(path: object) -> None:
        raise AssertionError(f"training opened the mask {path}")

    monkeypatch.setattr("pacl.data.images.open_mask", refuse)
    train(config)
    train(replace(config, data=data, output=tmp_path / "other"))
    ours = read_weights(config)
    theirs = read_weights(replace(config, output=tmp_path / "other"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# ---- what a run says --------------------------------------------------------------------------


def test_progress_and_metrics(config: TrainConfig) -> None:
    seen: list[Progress] = []
    result = train(replace(config, log_every=2), progress=seen.append)
    assert [state.step for state in seen] == [1, 2, 3]
    assert seen[-1].n_steps == 3
    assert seen[-1].eta_s == 0
    assert 0 <= seen[-1].accuracy <= 1
    lines = read_metrics(config)
    assert [line["step"] for line in lines] == [2, 3], "every second step, and the last"
    assert set(lines[0]) == {
        "step", "epoch", "loss", "loss_captions", "loss_nouns", "accuracy_image_to_text",
        "accuracy_text_to_image", "lr", "logit_scale", "images_per_s", "eta_s",
    }  # fmt: skip
    assert result.loss == seen[-1].loss == lines[-1]["loss"]
    assert (result.steps, result.is_stopped) == (3, False)


def test_epochs_count_whole_batches(config: TrainConfig) -> None:
    assert train(replace(config, steps=None, epochs=3, batch_size=5)).n_steps == 6


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_unreadable_images_are_left_out_and_counted(
    config: TrainConfig, tmp_path: Path, cache: str
) -> None:
    data = write_pairs(tmp_path / "damaged")
    (data / "images" / "4.png").write_bytes(b"")
    broken = data / "images" / "7.png"
    broken.write_bytes(broken.read_bytes()[:90])
    result = train(replace(config, data=data, cache=cache))
    assert any("left out 2 unreadable images" in note for note in result.notes)
    assert any("24 captions of 12 images" in note for note in result.notes)


def test_captions_over_the_context_length_are_cut_and_counted(
    config: TrainConfig, tmp_path: Path
) -> None:
    assert not any("cut" in note for note in train(config).notes)
    data = write_pairs(tmp_path / "long")
    rows = [f"images/{k}.png,a {'very ' * 90} red house number {k}" for k in range(12)]
    (data / "captions.csv").write_text("\n".join(["file_name,caption", *rows]), encoding="utf-8")
    result = train(replace(config, data=data, output=tmp_path / "of_long"))
    assert any("cut 12 captions to the encoder's 77 tokens" in note for note in result.notes)


def test_an_unreadable_image_met_in_a_step_is_named(config: TrainConfig, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "damaged")
    (data / "images" / "4.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"4\.png"):
        train(replace(config, data=data, cache="none", cache_images_gb=0.0))


def test_paper_sets_every_published_value(config: TrainConfig) -> None:
    paper = replace(
        config, paper=True, patch_temperature=0.03, token_layer=-2, init="clip", lr=1.0, warmup=9
    )
    resolved = paper.resolve()
    expected = {
        "objective": "pacl", "trainable": "embedder", "patch_temperature": 1.0, "token_layer": -1,
        "init": "random", "lr": 5e-4, "wd": 0.2, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6,
        "batch_size": 4096, "epochs": 10, "steps": None, "warmup": 0, "noun_weight": 1.0,
        "templates": "paper7", "augment": "none",
    }  # fmt: skip
    assert {name: getattr(resolved, name) for name in expected} == expected
    result = train(paper)
    assert result.n_steps == 10
    assert any("batch size 4,096 capped to the 12 images" in note for note in result.notes)


# ---- what it refuses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trainable": "vision"}, "vision cannot be trained here"),
        ({"objective": "clip", "trainable": "text,embedder"}, "embedder cannot be trained"),
        ({"lr": 0.0}, "lr: 0.0 is out of range"),
        ({"batch_size": 1}, "batch_size"),
        ({"keep_patches": 0.5}, "keep_patches"),
        ({"augment": "flip", "cache": "memory"}, "--cache none"),
        ({"device": "abacus"}, "abacus"),
        ({"patch_temperature": 0.0}, "patch_temperature"),
    ],
)
def test_wrong_settings_are_named(config: TrainConfig, change: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        train(replace(config, **change))
    assert not config.output.exists()


def test_one_image_is_not_enough(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 images"):
        train(replace(config, data=write_pairs(tmp_path / "one", n_images=1)))


def test_importing_the_settings_does_not_import_torch() -> None:
    code = "import sys, pacl.training.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
