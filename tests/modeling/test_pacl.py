"""PACL as a whole: frozen encoder, trained embedder, checkpoints, and what load() finds."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from checkpoints import write_clip
from foreign_towers import write_resnet, write_words
from pacl.errors import EnvironmentProblem, InputError
from pacl.modeling import names
from pacl.modeling.compatibility import patch_compatibility
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.loading import load
from pacl.modeling.loss import contrastive_loss
from pacl.modeling.pacl import Pacl
from pacl.modeling.pooling import pooled_compatibility
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.load import load_text_tower, load_vision_tower
from pacl.text.labels import Labels


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def pacl(clip_dir: Path) -> Pacl:
    encoder = HfClip.from_pretrained(clip_dir)
    embedder = VisionEmbedder(encoder.width, encoder.joint_width, hidden=10)
    return Pacl(
        encoder=encoder,
        embedder=embedder,
        patch_temperature=0.1,
        token_kind="sclip",
        token_layer=-2,
        logit_scale=33.0,
        training={"epochs": 3},
    )


@pytest.fixture
def saved(pacl: Pacl, tmp_path: Path) -> Path:
    pacl.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


IMAGES = (2, 3, 24, 40)

# ---- what it computes -----------------------------------------------------------------------


def test_patch_embeds_are_the_embedded_tokens_on_their_grid(pacl: Pacl) -> None:
    images = torch.randn(IMAGES)
    tokens, grid = pacl.encoder.encode_patches(images, kind="sclip", layer=-2)
    embeds = pacl.patch_embeds(images)
    assert grid == (3, 5)
    assert embeds.shape == (2, 3, 5, 16)
    assert pacl.embedder is not None
    torch.testing.assert_close(embeds.flatten(1, 2), pacl.embedder(tokens))
    assert pacl.patch_embeds(images, stride_px=4).shape == (2, 5, 9, 16)


def test_clip_start_is_clips_own_dense_baseline(clip_dir: Path) -> None:
    encoder = HfClip.from_pretrained(clip_dir)
    embedder = VisionEmbedder(encoder.width, encoder.joint_width)
    embedder.init_clip(encoder.clip.visual_projection.weight)
    images = torch.randn(IMAGES)
    untrained = Pacl(encoder=encoder, embedder=embedder)
    baseline = Pacl(encoder=encoder, embedder=None, token_kind="clip")
    torch.testing.assert_close(
        untrained.patch_embeds(images), baseline.patch_embeds(images), atol=1e-6, rtol=0
    )


def test_cached_half_precision_tokens_are_embedded(pacl: Pacl) -> None:
    assert pacl.embed_tokens(torch.randn(2, 5, 24).half()).dtype == torch.float32


def test_frozen_encoder_trained_embedder(pacl: Pacl) -> None:
    """After train() and three steps over all parameters the encoder is as it was, to the bit."""
    before = {name: value.clone() for name, value in pacl.state_dict().items()}
    pacl.train()
    assert not any(module.training for module in pacl.get_submodule("vision").modules())
    optimiser = torch.optim.AdamW(
        [p for p in pacl.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.2
    )
    texts = pacl.encoder.encode_texts(["a red house", "a boat"])
    for _ in range(3):
        embeds = pacl.patch_embeds(torch.randn(IMAGES)).flatten(1, 2)
        compatibility = patch_compatibility(embeds, texts, patch_temperature=0.1)
        optimiser.zero_grad()
        contrastive_loss(compatibility, 10.0).backward()
        optimiser.step()
    for name, value in pacl.state_dict().items():
        if name.startswith(("vision.", "text.")):
            assert torch.equal(value, before[name]), name
        else:
            assert not torch.equal(value, before[name]), name
    for name, parameter in pacl.named_parameters():
        assert (parameter.grad is None) == name.startswith(("vision.", "text.")), name


# ---- fingerprint ----------------------------------------------------------------------------


def _change_weights(part: str) -> Callable[[Pacl], None]:
    def change(pacl: Pacl) -> None:
        pacl.get_parameter(part).data.view(-1)[0] += 1e-3

    return change


def _set_on(**values: object) -> Callable[[Pacl], None]:
    def change(pacl: Pacl) -> None:
        for name, value in values.items():
            setattr(pacl, name, value)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _change_weights("vision.clip.vision_model.encoder.layers.1.mlp.fc1.weight"),
        _change_weights("vision.clip.text_model.encoder.layers.1.mlp.fc1.weight"),
        _change_weights("embedder.main_in.weight"),
        _change_weights("embedder.skip.bias"),
        _set_on(embedder=None),
        _set_on(token_kind="clip"),
        _set_on(token_layer=-1),
        _set_on(patch_temperature=0.2),
        _set_on(logit_scale=34.0),
        _set_on(pooling="mean"),
        _set_on(null_similarity=0.0),
    ],
)
def test_every_part_of_a_model_changes_its_fingerprint(
    pacl: Pacl, change: Callable[[Pacl], None]
) -> None:
    before = pacl.fingerprint
    pacl.encoder.__dict__["_fingerprint"] = ""  # hashed once, where the file is read: now anew
    assert pacl.fingerprint == before
    change(pacl)
    assert pacl.fingerprint != before


def test_a_fingerprint_survives_saving_and_starts_with_the_weights(pacl: Pacl, saved: Path) -> None:
    again = Pacl.from_pretrained(saved)
    assert again.fingerprint == pacl.fingerprint
    assert pacl.embedder is not None
    trained = hashlib.sha256(safetensors.torch.save(pacl.embedder.state_dict())).hexdigest()[:16]
    assert pacl.weights_fingerprint == f"{pacl.encoder.fingerprint}+{trained}"
    assert pacl.fingerprint.split()[0] == pacl.weights_fingerprint


# ---- checkpoints ----------------------------------------------------------------------------


def test_round_trip(pacl: Pacl, saved: Path) -> None:
    again = Pacl.from_pretrained(saved)
    images = torch.randn(IMAGES)
    assert torch.equal(again.patch_embeds(images), pacl.patch_embeds(images))
    for name in ("patch_temperature", "token_kind", "token_layer", "logit_scale"):
        assert getattr(again, name) == getattr(pacl, name)
    assert again.training_facts == {"epochs": 3}
    assert again.has_embedder
    assert not again.training


def test_a_checkpoint_keeps_its_pooling_and_scores_with_it(pacl: Pacl, tmp_path: Path) -> None:
    patches, texts = torch.randn(2, 5, 16), torch.randn(3, 16)
    plain = pacl.compatibility(patches, texts)
    assert torch.equal(plain, patch_compatibility(patches, texts, patch_temperature=0.1))
    pacl.pooling, pacl.null_similarity = "mean", None
    pacl.save_pretrained(tmp_path / "mean")
    mean = Pacl.from_pretrained(tmp_path / "mean").compatibility(patches, texts)
    assert torch.equal(mean, pooled_compatibility(patches, texts, pooling="mean"))
    pacl.pooling, pacl.null_similarity = "pacl", 0.25
    pacl.save_pretrained(tmp_path / "null")
    again = Pacl.from_pretrained(tmp_path / "null")
    assert again.null_similarity == 0.25
    assert again.fingerprint == pacl.fingerprint
    assert (again.compatibility(patches, texts).abs() < plain.abs()).all()


def test_own_captions_are_pooled_for_in_training_only(pacl: Pacl) -> None:
    patches, texts = torch.randn(2, 5, 16), torch.randn(3, 16)
    pacl.pooling = "own-caption"
    expected = patch_compatibility(patches, texts, patch_temperature=0.1)
    assert torch.equal(pacl.compatibility(patches, texts), expected)
    own = pacl.compatibility(patches, texts, own_texts=torch.tensor([2, 0]))
    torch.testing.assert_close(own[[0, 1], [2, 0]], expected[[0, 1], [2, 0]])
    assert not torch.allclose(own, expected)
    pacl.pooling = "pacl"
    of_all = pacl.compatibility(patches, texts, own_texts=torch.tensor([2, 0]))
    assert torch.equal(of_all, expected), "PACL pools for every text, whichever is an image's own"


def test_checkpoint_holds_only_what_was_trained(pacl: Pacl, saved: Path) -> None:
    assert {p.name for p in saved.iterdir()} == {"config.json", "embedder.safetensors"}
    n_parameters = sum(p.numel() for p in pacl.get_submodule("embedder").parameters())
    assert (saved / "embedder.safetensors").stat().st_size < 4 * n_parameters + 2000


def test_checkpoint_keys(saved: Path, pacl: Pacl) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config == {
        "format": "pacl",
        "version": 1,
        "encoder": pacl.encoder.source,
        "encoder_fingerprint": pacl.encoder.fingerprint,
        "token_kind": "sclip",
        "token_layer": -2,
        "patch_temperature": 0.1,
        "width": 24,
        "joint_width": 16,
        "hidden": 10,
        "logit_scale": 33.0,
        "training": {"epochs": 3},
    }


def test_a_baseline_has_nothing_to_save(clip_dir: Path, tmp_path: Path) -> None:
    baseline = Pacl(encoder=HfClip.from_pretrained(clip_dir), embedder=None)
    with pytest.raises(ValueError, match="nothing to save"):
        baseline.save_pretrained(tmp_path)


def test_a_full_disk_keeps_the_checkpoint(
    pacl: Pacl, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    assert pacl.embedder is not None
    pacl.embedder.init_random()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        pacl.save_pretrained(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def _truncate(path: Path) -> None:
    data = (path / "embedder.safetensors").read_bytes()
    (path / "embedder.safetensors").write_bytes(data[:-10])


def _pickle(path: Path) -> None:
    torch.save({}, path / "embedder.safetensors")


def _missing(path: Path) -> None:
    (path / "embedder.safetensors").unlink()


def _set(**values: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        config = json.loads((path / "config.json").read_text()) | values
        (path / "config.json").write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "truncated"),
        (_pickle, "not a safetensors file"),
        (_missing, "does not exist"),
        (_set(hidden=11), "do not fit"),
        (_set(width=25), "of width 25, the CLIP has 24"),
        (_set(encoder_fingerprint="0" * 16), "another CLIP"),
        (_set(version=3), "another version"),
        (_set(format="other"), "not a PACL checkpoint"),
    ],
)
def test_damaged_checkpoint_is_one_clear_error(
    saved: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(saved)
    with pytest.raises(InputError, match=message):
        Pacl.from_pretrained(saved)


def test_another_clip_of_the_same_widths_is_refused(saved: Path, tmp_path: Path) -> None:
    other = HfClip.from_pretrained(write_clip(tmp_path / "other", seed=1))
    with pytest.raises(InputError, match="another CLIP"):
        Pacl.from_pretrained(saved, encoder=other)


# ---- pairs of towers ------------------------------------------------------------------------


def _pair(tmp_path: Path, head: str) -> Pacl:
    vision = load_vision_tower(write_resnet(tmp_path / "vision"))
    text = load_text_tower(write_words(tmp_path / "words"))
    joint = vision.width if head == "text" else text.text_width
    return Pacl(
        vision=vision,
        text=text,
        embedder=None if head == "text" else VisionEmbedder(vision.width, joint),
        text_embedder=None if head == "vision" else VisionEmbedder(text.text_width, joint),
        token_kind="features",
    ).eval()


@pytest.mark.parametrize("head", ["vision", "text", "both"])
def test_a_pair_comes_back_with_its_head(tmp_path: Path, head: str) -> None:
    model = _pair(tmp_path, head)
    assert model.head == head
    model.save_pretrained(tmp_path / "run")
    again = load(tmp_path / "run", device="cpu")
    assert again.fingerprint == model.fingerprint
    assert again.describe() == model.describe()
    labels = Labels(names=("house", "boat"), prompts=(("house",), ("boat",)))
    words, _ = again.encode_classes(labels, ["a {}"])
    patches = again.patch_embeds(torch.ones(1, 3, 32, 48))
    assert patches.shape[-1] == words.shape[-1]
    assert torch.equal(words, model.encode_classes(labels, ["a {}"])[0])
    assert torch.equal(patches, model.patch_embeds(torch.ones(1, 3, 32, 48)))
    torch.testing.assert_close(words.norm(dim=-1), torch.ones(2))
    with pytest.raises(InputError, match="no joint space"):
        _ = again.encoder


def test_patches_of_a_convolution_are_not_merged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be merged"):
        _pair(tmp_path, "vision").check_merging()


def test_a_text_head_leaves_patches_as_they_are(tmp_path: Path) -> None:
    model = _pair(tmp_path, "text")
    tokens, grid = model.vision.encode_patches(torch.ones(1, 3, 32, 48), kind="features")
    embeds = model.patch_embeds(torch.ones(1, 3, 32, 48))
    assert torch.equal(embeds, tokens.unflatten(1, grid))


@pytest.mark.parametrize(
    "part", ["embedder.skip.bias", "text_embedder.skip.bias", "text.table", "vision"]
)
def test_every_part_of_a_pair_changes_its_fingerprint(tmp_path: Path, part: str) -> None:
    model = _pair(tmp_path, "both")
    before = model.fingerprint
    if part == "text.table":
        model.text = load_text_tower(write_words(tmp_path / "others", seed=1))
    elif part == "vision":
        path = tmp_path / "vision" / "model.safetensors"
        weights = safetensors.torch.load_file(path)
        next(w for name, w in weights.items() if name.endswith("convolution.weight")).add_(1e-3)
        safetensors.torch.save_file(weights, path)
        model.vision = load_vision_tower(tmp_path / "vision")
    else:
        model.get_parameter(part).data[0] += 1e-3
    assert model.fingerprint != before


def test_a_changed_tower_is_refused_and_a_moved_one_found(tmp_path: Path) -> None:
    _pair(tmp_path, "vision").save_pretrained(tmp_path / "run")
    (tmp_path / "words").rename(tmp_path / "moved")
    model = load(tmp_path / "run", text=tmp_path / "moved", device="cpu")
    assert model.text.source == str(tmp_path / "moved")
    write_words(tmp_path / "words", seed=1)
    with pytest.raises(InputError, match="another tower than"):
        load(tmp_path / "run", device="cpu")
    with pytest.raises(InputError, match="no joint space"):
        load(vision=tmp_path / "vision", text=tmp_path / "moved", device="cpu")


def test_a_clip_crosses_with_other_towers(clip_dir: Path, tmp_path: Path) -> None:
    clip, words = load_vision_tower(clip_dir), load_text_tower(write_words(tmp_path / "words"))
    crossed = Pacl(vision=clip, text=words, embedder=VisionEmbedder(clip.width, words.text_width))
    crossed.save_pretrained(tmp_path / "run")
    again = load(tmp_path / "run", device="cpu")
    assert again.patch_embeds(torch.ones(IMAGES)).shape == (2, 3, 5, 20)


# ---- load -----------------------------------------------------------------------------------


def test_a_clip_alone_is_the_baseline_and_says_so(clip_dir: Path) -> None:
    model = load(clip_dir, device="cpu")
    assert not model.has_embedder
    assert model.token_kind == "maskclip"
    assert "No trained embedder" in model.describe()
    assert str(clip_dir) in model.describe()
    tokens, _ = model.encoder.encode_patches(torch.ones(IMAGES), kind="maskclip")
    expected = model.encoder.project_patches(tokens)
    assert torch.equal(model.patch_embeds(torch.ones(IMAGES)).flatten(1, 2), expected)


def test_an_embedder_beside_its_clip_is_used(pacl: Pacl, clip_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_dir, tmp_path / "both")
    pacl.save_pretrained(tmp_path / "both" / "pacl")
    model = load(tmp_path / "both", device="cpu")
    assert model.has_embedder
    assert "trained embedder" in model.describe()
    assert model.encoder.source == str(tmp_path / "both")


def test_a_run_is_found_through_its_newest_checkpoint(pacl: Pacl, tmp_path: Path) -> None:
    pacl.save_pretrained(tmp_path / "last")
    assert load(tmp_path, device="cpu").logit_scale == 33.0
    pacl.logit_scale = 44.0
    pacl.save_pretrained(tmp_path / "best")
    assert load(tmp_path, device="cpu").logit_scale == 44.0


def test_an_embedder_may_be_named(saved: Path, clip_dir: Path, tmp_path: Path) -> None:
    assert load(clip_dir, embedder=saved, device="cpu").has_embedder
    with pytest.raises(InputError, match="has its own embedder"):
        load(saved, embedder=saved, device="cpu")
    write_clip(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="another CLIP"):
        load(tmp_path / "other", embedder=saved, device="cpu")


def test_relative_encoders_are_looked_for_here_and_in_the_repository(
    pacl: Pacl, clip_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(clip_dir, repository / "models" / "tiny")
    assert isinstance(pacl.encoder, HfClip)
    pacl.encoder.source = "models/tiny"
    pacl.save_pretrained(tmp_path / "run")
    monkeypatch.setattr(names, "PACKAGE", repository / "src" / "pacl")
    assert load(tmp_path / "run", device="cpu").encoder.source == "models/tiny"
    monkeypatch.setattr(names, "PACKAGE", tmp_path / "elsewhere" / "src" / "pacl")
    monkeypatch.chdir(repository)
    assert load(tmp_path / "run", device="cpu").has_embedder


@pytest.mark.parametrize("place", ["models", "src/pacl/models"])
def test_storybook_in_a_repository_or_a_wheel(
    clip_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(names, "PACKAGE", tmp_path / "src" / "pacl")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="storybook"):
        load("storybook")
    shutil.copytree(clip_dir, tmp_path / place / "storybook")
    assert load("storybook", device="cpu").encoder.source == "storybook"


def test_a_run_without_checkpoint_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        load(tmp_path)
