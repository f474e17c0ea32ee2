"""CLIP through transformers: our walk against the library's own outputs, and broken checkpoints.

The full-size cases have ViT-B/16's and ViT-L/14's configuration and random weights, written and
read in the real format; only their vocabulary is small.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from checkpoints import write_clip, write_preprocessing
from pacl.errors import EnvironmentProblem, InputError
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers import files
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.preprocess import Preprocessing
from pacl.modeling.towers.walk import drop_patches
from pacl.text.labels import Labels

TEXTS = ["a photo of a red house", "ITAP of the purple car,  naïve!", "x"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def encoder(directory: Path) -> HfClip:
    return HfClip.from_pretrained(directory)


@pytest.fixture(scope="module")
def reference(directory: Path) -> Any:
    return library_model(directory)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def library_model(directory: Path) -> Any:
    return CLIPModel.from_pretrained(directory).requires_grad_(False)


def library_text_embeds(model: Any, directory: Path) -> Tensor:
    tokens = CLIPTokenizer.from_pretrained(directory)(TEXTS, padding=True, return_tensors="pt")
    return F.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


# ---- parity with the library ----------------------------------------------------------------


@pytest.fixture(
    scope="module",
    params=[pytest.param(s, marks=pytest.mark.slow) for s in ("vit-b-16", "vit-l-14")],
)
def full_size(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[HfClip, Any, Path]]:
    path = write_clip(tmp_path_factory.mktemp("full"), size=request.param)
    yield HfClip.from_pretrained(path), library_model(path), path
    (path / "model.safetensors").unlink()


def test_full_size_checkpoint_equals_the_library(full_size: tuple[HfClip, Any, Path]) -> None:
    encoder, model, path = full_size
    images = torch.randn(1, 3, 224, 224)
    theirs = model.get_image_features(images, output_hidden_states=True)
    assert_close(encoder.encode_images(images), F.normalize(theirs.pooler_output, dim=-1))
    last, grid = encoder.encode_patches(images)
    assert grid == (224 // encoder.patch_size_px,) * 2
    assert_close(last, model.vision_model.post_layernorm(theirs.last_hidden_state[:, 1:]))
    earlier, _ = encoder.encode_patches(images, layer=-2, norm=False)
    assert_close(earlier, theirs.hidden_states[-2][:, 1:])
    assert_close(encoder.encode_texts(TEXTS), library_text_embeds(model, path))


@pytest.mark.parametrize("hidden_act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("legacy_eos", [False, True])
def test_activation_and_end_token_come_from_the_config(
    tmp_path: Path, hidden_act: str, legacy_eos: bool
) -> None:
    write_clip(tmp_path, hidden_act=hidden_act, legacy_eos=legacy_eos)
    encoder, model = HfClip.from_pretrained(tmp_path), library_model(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    theirs = model.get_image_features(images).pooler_output
    assert_close(encoder.encode_images(images), F.normalize(theirs, dim=-1))
    assert_close(encoder.encode_texts(TEXTS), library_text_embeds(model, tmp_path))


def test_activations_can_be_told_apart(tmp_path: Path, encoder: HfClip) -> None:
    other = HfClip.from_pretrained(write_clip(tmp_path, hidden_act="gelu"))
    images = torch.randn(1, 3, 32, 32)
    assert (other.encode_patches(images)[0] - encoder.encode_patches(images)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("layer", [-1, -2, -3, -4])
@pytest.mark.parametrize("norm", [True, False])
def test_every_layer_is_the_librarys(
    encoder: HfClip, reference: Any, layer: int, norm: bool
) -> None:
    images = torch.randn(2, 3, 32, 32)
    hidden = reference.get_image_features(images, output_hidden_states=True).hidden_states
    expected = hidden[layer][:, 1:]
    if norm:
        expected = reference.vision_model.post_layernorm(expected)
    tokens, grid = encoder.encode_patches(images, layer=layer, norm=norm)
    assert grid == (4, 4)
    assert_close(tokens, expected)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (24, 56), (8, 8), (45, 33)])
def test_other_image_sizes_are_the_librarys(
    encoder: HfClip, reference: Any, size: tuple[int, int]
) -> None:
    images = torch.randn(2, 3, *size)
    theirs = reference.get_image_features(images, interpolate_pos_encoding=True)
    tokens, grid = encoder.encode_patches(images, norm=False)
    assert grid == (size[0] // 8, size[1] // 8)
    assert_close(tokens, theirs.last_hidden_state[:, 1:])
    assert_close(encoder.encode_images(images), F.normalize(theirs.pooler_output, dim=-1))


def test_native_stride_is_the_default_and_small_ones_refine(encoder: HfClip) -> None:
    images = torch.randn(1, 3, 32, 48)
    native, grid = encoder.encode_patches(images)
    same, _ = encoder.encode_patches(images, stride_px=8)
    assert torch.equal(native, same)
    assert grid == (4, 6)
    for stride, finer in ((4, (7, 11)), (2, (13, 21))):
        tokens, grid = encoder.encode_patches(images, stride_px=stride)
        assert grid == finer
        assert tokens.shape == (1, finer[0] * finer[1], encoder.width)
        assert tokens.isfinite().all()


def test_projection_of_patches_is_the_librarys(encoder: HfClip, reference: Any) -> None:
    tokens = torch.randn(2, 5, encoder.width)
    assert torch.equal(encoder.project_patches(tokens), reference.visual_projection(tokens))


def test_facts(encoder: HfClip, reference: Any, directory: Path) -> None:
    assert encoder.source == str(directory)
    assert (encoder.image_size_px, encoder.patch_size_px) == (32, 8)
    assert (encoder.width, encoder.joint_width, encoder.n_layers) == (24, 16, 4)
    assert encoder.context_length == 77
    assert encoder.device == torch.device("cpu")
    assert encoder.logit_scale == pytest.approx(reference.logit_scale.exp().item())


@pytest.mark.parametrize(
    "wrong", [{"kind": "other"}, {"layer": 0}, {"layer": -5}, {"stride_px": 9}]
)
def test_impossible_patch_tokens_are_refused(encoder: HfClip, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must (be one of|lie in)"):
        encoder.encode_patches(torch.randn(1, 3, 32, 32), **wrong)


# ---- preprocessing --------------------------------------------------------------------------


# Centre crops of sizes where torchvision and transformers agree; test_preprocess.py has the others.
@pytest.mark.parametrize("size", [(32, 32), (40, 77), (100, 33), (7, 5), (31, 64)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_preprocessing_is_the_librarys(
    encoder: HfClip, directory: Path, size: tuple[int, int], mode: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    theirs = CLIPImageProcessorPil.from_pretrained(directory)(image, return_tensors="pt")
    ours = encoder.prepare(image)
    torch.testing.assert_close(ours, theirs["pixel_values"][0], atol=1e-6, rtol=1e-6)


def test_a_given_size_is_not_cropped(encoder: HfClip) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    expected = np.array(image.resize((40, 24), Image.Resampling.BICUBIC))
    ours = encoder.prepare(image, size_px=(24, 40))
    assert torch.equal(
        ours, encoder.normalise(torch.from_numpy(expected).permute(2, 0, 1)[None])[0]
    )


def test_arrays_and_native_sizes_keep_their_pixels(encoder: HfClip) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    expected = encoder.normalise(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
    assert torch.equal(encoder.prepare(pixels), expected)
    assert torch.equal(encoder.prepare(Image.fromarray(pixels), size_px=(32, 32)), expected)


def test_sizes_in_old_and_new_notation() -> None:
    old = Preprocessing.from_config({"size": 336, "crop_size": 336})
    new = Preprocessing.from_config(
        {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    )
    assert old == new
    exact = Preprocessing.from_config(
        {"size": {"height": 64, "width": 32}, "do_center_crop": False}
    )
    assert exact.resize(Image.new("RGB", (9, 9))).shape == (3, 64, 32)
    with pytest.raises(InputError, match="longest_edge"):
        Preprocessing.from_config({"size": {"longest_edge": 3}})


def test_preprocessing_may_stand_in_processor_config(tmp_path: Path) -> None:
    write_clip(tmp_path, with_weights=False)
    values = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").unlink()
    values["image_mean"] = [0.5, 0.5, 0.5]
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    assert HfClip.from_config(tmp_path).preprocessing.mean == (0.5, 0.5, 0.5)


# ---- texts ----------------------------------------------------------------------------------


def test_tokens_are_the_librarys(encoder: HfClip, directory: Path) -> None:
    theirs = CLIPTokenizer.from_pretrained(directory)(TEXTS, padding=True, return_tensors="pt")
    ids, mask, n_cut = encoder.tokenize(TEXTS)
    assert torch.equal(ids, theirs.input_ids)
    assert torch.equal(mask, theirs.attention_mask.bool())
    assert n_cut == 0


def test_long_texts_are_cut_counted_and_keep_their_end(encoder: HfClip, directory: Path) -> None:
    texts = ["house " * 200, "a house", "tree " * 76]
    tokenizer = CLIPTokenizer.from_pretrained(directory)
    theirs = tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    ids, mask, n_cut = encoder.tokenize(texts)
    assert n_cut == 2
    assert torch.equal(ids, theirs.input_ids)
    assert mask.sum(dim=1).tolist() == [77, 4, 77]
    assert ids[0, -1] == tokenizer.eos_token_id


def test_padding_and_company_change_nothing(encoder: HfClip) -> None:
    together = encoder.encode_texts([*TEXTS, "a very long sentence " * 5])
    alone = torch.cat([encoder.encode_texts([text]) for text in TEXTS])
    assert_close(together[: len(TEXTS)], alone)


def test_many_texts_are_encoded_in_chunks(encoder: HfClip, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoder.encode_texts(TEXTS)
    monkeypatch.setattr("pacl.modeling.towers.tokens.TEXTS_AT_ONCE", 2)
    assert_close(encoder.encode_texts(TEXTS), whole)


def test_class_embeddings_normalise_average_normalise(encoder: HfClip) -> None:
    labels = Labels(names=("house", "vehicle"), prompts=(("house",), ("car", "boat")))
    templates = ("a photo of a {}.", "art of the {}.", "{}")
    embeds, classes = Pacl(encoder=encoder, embedder=None).encode_classes(labels, templates)
    assert classes.tolist() == [0, 1, 1]
    for embed, name in zip(embeds, ["house", "car", "boat"], strict=True):
        mean = torch.zeros(encoder.joint_width)
        for template in templates:
            mean += encoder.encode_texts([template.format(name)])[0] / len(templates)
        assert_close(embed, mean / mean.norm())


# ---- training from scratch ------------------------------------------------------------------


def test_frozen_until_unfrozen(directory: Path) -> None:
    encoder = HfClip.from_pretrained(directory)
    assert not any(module.training for module in encoder.clip.modules())
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    encoder.unfreeze({"vision"})
    encoder.train()
    trained = {name for name, p in encoder.clip.named_parameters() if p.requires_grad}
    expected = {
        name
        for name, _ in encoder.clip.named_parameters()
        if name.startswith(("vision_model.", "visual_projection."))
    }
    assert trained == expected
    assert encoder.clip.vision_model.training
    assert not encoder.clip.text_model.training
    with pytest.raises(ValueError, match="logit"):
        encoder.unfreeze({"logit"})


def test_gradients_reach_both_towers(directory: Path) -> None:
    encoder = HfClip.from_config(directory)
    encoder.unfreeze({"vision", "text"})
    ids, mask, _ = encoder.tokenize(TEXTS)
    similarity = (
        encoder.encode_images(torch.randn(3, 3, 32, 32)) @ encoder.encode_tokens(ids, mask).T
    )
    similarity[:, 0].sum().backward()
    without = {name for name, p in encoder.clip.named_parameters() if p.grad is None}
    assert without == {"logit_scale"}


def test_dropping_patches(directory: Path) -> None:
    encoder = HfClip.from_pretrained(directory)
    images = torch.randn(2, 3, 32, 32)

    def encode(keep: float, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return encoder.encode_images(images, keep_patches=keep, generator=generator)

    assert torch.equal(encode(1.0, 0), encoder.encode_images(images))
    assert torch.equal(encode(0.5, 0), encode(0.5, 0))
    assert not torch.equal(encode(0.5, 0), encode(0.5, 1))


def test_kept_patches_are_some_of_the_image_and_cls_leads() -> None:
    tokens = torch.arange(3 * 9).float().view(3, 9, 1)
    kept = drop_patches(tokens, 0.5)
    assert torch.equal(kept[:, 0], tokens[:, 0])
    for own, all_of_it in zip(kept[:, 1:, 0], tokens[:, 1:, 0], strict=True):
        assert len(set(own.tolist())) == 4
        assert set(own.tolist()) <= set(all_of_it.tolist())
    assert drop_patches(tokens, 0.01).shape == (3, 2, 1)


def test_stored_logit_scale(directory: Path, tmp_path: Path) -> None:
    encoder = HfClip.from_pretrained(directory)
    before = encoder.fingerprint
    encoder.set_logit_scale(42.0)
    assert encoder.fingerprint != before
    encoder.save_pretrained(tmp_path)
    assert HfClip.from_pretrained(tmp_path).logit_scale == pytest.approx(42.0, rel=1e-5)


# ---- saving and loading ---------------------------------------------------------------------


def test_what_is_saved_is_the_real_format(directory: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    made = HfClip.from_config(directory)
    made.save_pretrained(tmp_path)
    images = torch.randn(1, 3, 32, 32)
    again = HfClip.from_pretrained(tmp_path)
    assert torch.equal(again.encode_images(images), made.encode_images(images))
    assert again.fingerprint == made.fingerprint
    theirs = library_model(tmp_path)
    assert_close(
        F.normalize(theirs.get_image_features(images).pooler_output, dim=-1),
        made.encode_images(images),
    )
    assert_close(library_text_embeds(theirs, tmp_path), made.encode_texts(TEXTS))
    again.save_pretrained(tmp_path)  # over itself
    assert HfClip.from_pretrained(tmp_path).fingerprint == made.fingerprint


def test_random_weights_follow_the_seed(directory: Path) -> None:
    prints = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        prints.append(HfClip.from_config(directory).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_weights_in_several_files(directory: Path, encoder: HfClip, tmp_path: Path) -> None:
    CLIPModel.from_pretrained(directory).save_pretrained(tmp_path, max_shard_size="40KB")
    files.copy_side_files(directory, tmp_path)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert HfClip.from_pretrained(tmp_path).fingerprint == encoder.fingerprint


def test_half_precision_stored_and_loaded(directory: Path, encoder: HfClip, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path, dtype=torch.float16)
    stored, full = (d / "model.safetensors" for d in (tmp_path, directory))
    assert stored.stat().st_size < 0.6 * full.stat().st_size
    images = torch.randn(1, 3, 32, 32)
    again = HfClip.from_pretrained(tmp_path)
    assert again.clip.logit_scale.dtype == torch.float32
    torch.testing.assert_close(
        again.encode_images(images), encoder.encode_images(images), atol=1e-2, rtol=0
    )
    small = HfClip.from_pretrained(directory, dtype=torch.bfloat16)
    assert small.encode_patches(images)[0].dtype == torch.bfloat16
    assert small.fingerprint == encoder.fingerprint


def test_a_full_disk_keeps_the_checkpoint(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    HfClip.from_config(directory).save_pretrained(tmp_path)
    before = HfClip.from_pretrained(tmp_path).fingerprint

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        HfClip.from_config(directory).save_pretrained(tmp_path)
    assert HfClip.from_pretrained(tmp_path).fingerprint == before
    assert not list(tmp_path.glob(".*"))


# ---- broken checkpoints ---------------------------------------------------------------------


def _truncate(path: Path) -> None:
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[: len(data) // 2])


def _empty(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"")


def _pickle(path: Path) -> None:
    (path / "model.safetensors").unlink()
    torch.save({}, path / "pytorch_model.bin")


def _disguised_pickle(path: Path) -> None:
    torch.save({}, path / "model.safetensors")


def _other_config(path: Path) -> None:
    write_clip(path, size="tiny", with_weights=False)
    config = json.loads((path / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 2
    (path / "config.json").write_text(json.dumps(config))


def _other_width(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    config["projection_dim"] = 8
    (path / "config.json").write_text(json.dumps(config))


def _other_model(path: Path) -> None:
    (path / "config.json").write_text('{"model_type": "siglip"}')


def _nonsense_config(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    config["vision_config"]["hidden_size"] = "wide"
    (path / "config.json").write_text(json.dumps(config))


def _bad_json(path: Path) -> None:
    (path / "config.json").write_text("{")


def _missing(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "truncated"),
        (_empty, "truncated"),
        (_pickle, "pickle"),
        (_disguised_pickle, "not a safetensors file"),
        (_other_config, "unknown 32"),
        (_other_width, "do not fit"),
        (_other_model, "siglip"),
        (_nonsense_config, "does not describe a CLIP"),
        (_bad_json, "not valid JSON"),
        (_missing("config.json"), "config.json"),
        (_missing("model.safetensors"), "model.safetensors"),
        (_missing("preprocessor_config.json"), "preprocessor_config.json"),
        (_missing("vocab.json"), "tokenizer"),
    ],
)
def test_damaged_checkpoint_is_one_clear_error(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(write_clip(tmp_path))
    with pytest.raises(InputError, match=message):
        HfClip.from_pretrained(tmp_path)


def test_a_pickle_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pickle(write_clip(tmp_path))
    monkeypatch.setattr("pickle.Unpickler", None)
    with pytest.raises(InputError, match="refused"):
        HfClip.from_pretrained(tmp_path)


# ---- the hub --------------------------------------------------------------------------------


def test_no_network_is_the_environments_fault() -> None:
    with pytest.raises(EnvironmentProblem, match="could not be downloaded"):
        HfClip.from_pretrained("openai/clip-vit-base-patch16")


def test_a_mistyped_path_is_the_users() -> None:
    with pytest.raises(InputError, match="neither a directory"):
        HfClip.from_pretrained("./no/such/directory")


def test_pickles_on_the_hub_give_way_to_the_robots_conversion(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, converted = tmp_path / "snapshots" / "main", tmp_path / "snapshots" / "pull"
    for snapshot in (main, converted):
        snapshot.mkdir(parents=True)
        write_preprocessing(snapshot, 32)

    def snapshot_download(hub_id: str, *, allow_patterns: list[str], revision: str = "main") -> str:
        assert not any(pattern.endswith(".bin") for pattern in allow_patterns)
        if revision == "refs/pr/7":
            (converted / "model.safetensors").touch()
            return str(converted)
        return str(main)

    class HfApi:
        def get_repo_discussions(self, hub_id: str, **which: str) -> list[Any]:
            assert which["author"] == "SFconvertbot"
            return [SimpleNamespace(git_reference="refs/pr/7")] if hub_id == "a/converted" else []

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.HfApi", HfApi)
    with pytest.raises(InputError, match="pickles are refused"):
        files.find_checkpoint("a/pickle")
    assert files.find_checkpoint("a/converted") == converted
    assert files.find_checkpoint("a/pickle") == converted  # an earlier download is found again
