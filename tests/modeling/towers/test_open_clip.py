"""open_clip's own format: the same CLIP as in transformers' format, and as the library runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

import pacl
from checkpoints import write_clip
from open_clip_checkpoints import write_open_clip
from pacl.errors import EnvironmentProblem, InputError
from pacl.modeling.towers import load_text_tower, load_vision_tower
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.listing import describe_towers
from pacl.modeling.towers.load import load_pair
from pacl.modeling.towers.timm_clip import OpenClipText, TimmTower
from pacl.modeling.towers.torchvision_guard import guard_against_torchvision

TEXTS = ["a photo of a red house", "a dog’s life &amp; R&amp;amp;B", "sea " * 90]


def images(*size: int) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))


def change(directory: Path, half: str, **settings: Any) -> None:
    path = directory / "open_clip_config.json"
    values = json.loads(path.read_text())
    (values["model_cfg"][half] if half else values["model_cfg"]).update(settings)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("is_custom", [False, True])
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_it_is_the_same_clip(tmp_path: Path, quick_gelu: bool, is_custom: bool) -> None:
    same = HfClip.from_pretrained(
        write_clip(tmp_path / "a", hidden_act="quick_gelu" if quick_gelu else "gelu")
    )
    directory = write_open_clip(tmp_path / "b", quick_gelu=quick_gelu, is_custom=is_custom)
    found = load_vision_tower(directory)
    assert isinstance(found, HfClip)
    assert found.fingerprint == same.fingerprint
    assert found.preprocessing == same.preprocessing
    for x in (images(32, 32), images(24, 56)):
        tokens, _ = found.encode_patches(x, kind="clip")
        assert torch.equal(tokens, same.encode_patches(x, kind="clip")[0])
    texts = load_text_tower(directory).encode_texts(TEXTS)
    assert torch.equal(texts, same.encode_texts(TEXTS))
    assert found.source == str(directory)


def test_as_a_model_and_as_both_towers(tmp_path: Path) -> None:
    directory = write_open_clip(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8))
    assert pacl.load(directory).segment(image, ["sea", "road"]).label_map.shape == (40, 56)
    vision, text = load_pair(directory, directory)
    assert vision is text
    [row] = describe_towers(tmp_path)
    assert (row["tower"], row["family"], row["part"]) == (str(directory), "open_clip", "both")


def test_beside_transformers_format_it_is_not_read(tmp_path: Path) -> None:
    directory = write_open_clip(tmp_path)
    (directory / "config.json").write_text('{"architecture": "vit_base_patch16_clip_224"}')  # timm
    assert isinstance(load_vision_tower(directory), HfClip)
    (directory / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(InputError, match=r"holds no model.safetensors"):
        load_vision_tower(directory)


def test_from_the_hub_its_own_weights_are_fetched_where_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_open_clip(tmp_path)
    asked: list[str] = []

    def snapshot_download(hub_id: str, *, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(directory)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert load_vision_tower("imageomics/bioclip").source == "imageomics/bioclip"
    assert {"open_clip_config.json", "open_clip*.safetensors"} <= set(asked)
    asked.clear()
    (directory / "config.json").write_text('{"model_type": "clip"}')  # in both formats
    with pytest.raises(InputError):
        load_vision_tower("laion/in-both-formats")
    assert "open_clip*.safetensors" not in asked


def test_saved_it_has_transformers_format(tmp_path: Path) -> None:
    clip = HfClip.from_pretrained(write_open_clip(tmp_path / "a", quick_gelu=True))
    clip.save_pretrained(tmp_path / "b")
    again = HfClip.from_pretrained(tmp_path / "b")
    assert again.fingerprint == clip.fingerprint
    assert again.preprocessing == clip.preprocessing
    assert torch.equal(again.encode_texts(TEXTS), clip.encode_texts(TEXTS))


def test_preprocessing_is_its_own(tmp_path: Path) -> None:
    values = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
    write_open_clip(tmp_path / "a", preprocess=values | {"resize_mode": "squash"})
    found = load_vision_tower(tmp_path / "a").preprocessing
    assert (found.resize_px, found.crop_px, found.resample) == ((32, 32), None, 2)
    assert (found.mean, found.std) == ((0.5,) * 3, (0.5,) * 3)
    write_open_clip(tmp_path / "b", preprocess={"resize_mode": "longest"})
    with pytest.raises(InputError, match="resizing that pacl does not do"):
        load_vision_tower(tmp_path / "b")


@pytest.mark.parametrize(
    ("half", "settings"),
    [
        ("vision_cfg", {"layers": [3, 4, 6, 3]}),
        ("vision_cfg", {"no_ln_pre": True}),
        ("vision_cfg", {"pool_type": "avg"}),
        ("text_cfg", {"no_causal_mask": True}),
        ("text_cfg", {"pool_type": "last"}),
        ("", {"multimodal_cfg": {}}),
    ],
)
def test_what_is_no_plain_clip_is_refused(
    tmp_path: Path, half: str, settings: dict[str, Any]
) -> None:
    directory = write_open_clip(tmp_path)
    change(directory, half, **settings)
    with pytest.raises(InputError, match=next(iter(settings))):
        pacl.load(directory)
    assert describe_towers(tmp_path) == []


def test_a_timm_models_texts_are_a_tower(tmp_path: Path) -> None:
    same = HfClip.from_pretrained(write_open_clip(tmp_path))
    change(tmp_path, "vision_cfg", timm_model_name="eva02_base_patch16_clip_224")
    found = load_text_tower(tmp_path)
    assert isinstance(found, OpenClipText)
    assert (found.text_width, found.context_length) == (16, 77)
    assert found.logit_scale == pytest.approx(same.logit_scale)
    torch.testing.assert_close(found.encode_texts(TEXTS), same.encode_texts(TEXTS))
    with pytest.raises(InputError, match="timm_model_name eva02"):
        pacl.load(tmp_path)
    assert describe_towers(tmp_path)[0]["can do"] == "features; its own stride"


def test_without_a_causal_mask_padding_is_attended_to(tmp_path: Path) -> None:
    """MobileCLIP's texts, against torch's own transformer layers."""
    stored = load_file(write_open_clip(tmp_path) / "open_clip_model.safetensors")
    change(tmp_path, "vision_cfg", timm_model_name="fastvit_mci1")
    change(tmp_path, "text_cfg", no_causal_mask=True)
    tower = load_text_tower(tmp_path)
    ids, mask, _ = tower.tokenize(TEXTS)
    assert ids.shape == (3, 77)
    assert not ids[~mask].any()
    x = stored["token_embedding.weight"][ids] + stored["positional_embedding"]
    for number in range(2):
        layer = torch.nn.TransformerEncoderLayer(
            20, 2, 80, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        ours = {"norm1": "ln_1", "norm2": "ln_2", "self_attn": "attn"}
        ours |= {"linear1": "mlp.c_fc", "linear2": "mlp.c_proj"}
        names = {name: name.split(".")[0] for name in layer.state_dict()}
        prefix = f"transformer.resblocks.{number}."
        weights = {n: stored[prefix + n.replace(m, ours[m], 1)] for n, m in names.items()}
        layer.load_state_dict(weights)
        with torch.no_grad():
            x = layer(x)
    x = F.layer_norm(x, (20,), stored["ln_final.weight"], stored["ln_final.bias"])
    end = x[torch.arange(3), mask.sum(dim=1) - 1] @ stored["text_projection"]
    torch.testing.assert_close(
        tower.encode_tokens(ids, mask), F.normalize(end, dim=-1), atol=1e-5, rtol=1e-4
    )
    tokenizer = Tokenizer.from_str(tower.tokenizer_json())
    assert [each.ids for each in tokenizer.encode_batch([TEXTS[0], TEXTS[2]])] == ids[::2].tolist()


def test_without_timm_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(write_open_clip(tmp_path), "vision_cfg", timm_model_name="test_vit")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EnvironmentProblem, match="pip install --no-deps timm"):
        load_vision_tower(tmp_path)


@pytest.mark.parametrize(
    ("name", "pool", "side", "patch"),
    [
        ("test_vit", "token", 160, 16),
        ("test_resnet", "avg", 160, 32),
        pytest.param("eva02_base_patch16_clip_224", "token", 224, 16, marks=pytest.mark.slow),
        pytest.param("fastvit_mci1", "avg", 256, 32, marks=pytest.mark.slow),
        pytest.param("vit_base_mci_224", "token", 224, 16, marks=pytest.mark.slow),
        pytest.param("vit_pe_core_base_patch16_224", "map", 224, 16, marks=pytest.mark.slow),
    ],
)
def test_timm_towers_are_the_librarys(
    tmp_path: Path, name: str, pool: str, side: int, patch: int
) -> None:
    guard_against_torchvision()
    library = pytest.importorskip("open_clip")
    directory = write_open_clip(tmp_path, is_custom=True)
    settings = {"timm_pool": pool, "timm_proj": None, "image_size": side}
    change(directory, "vision_cfg", timm_model_name=name, **settings)
    change(directory, "text_cfg", no_causal_mask=name == "fastvit_mci1")
    torch.manual_seed(0)
    model = library.create_model(f"local-dir:{directory}", load_weights=False).eval()
    save_file(model.state_dict(), directory / "open_clip_model.safetensors")
    vision, texts = load_pair(directory, directory)
    assert isinstance(vision, TimmTower)
    assert (vision.patch_size_px, vision.image_size_px) == (patch, side)
    x = images(side, side)
    with torch.inference_mode():
        found, grid = vision.encode_patches(x, kind="features")
        expected = model.visual.trunk.forward_features(x)
        if expected.ndim == 4:
            expected = expected.flatten(2).transpose(1, 2)
        assert (found - expected[:, -found.shape[1] :]).abs().max() <= 1e-4 * expected.abs().max()
        assert grid == (side // patch, side // patch)
        ids, mask, _ = texts.tokenize(TEXTS)
        padded = F.pad(ids * mask, (0, 77 - ids.shape[1]))
        expected = F.normalize(model.encode_text(padded), dim=-1)
    assert (texts.encode_tokens(ids, mask) - expected).abs().max() <= 1e-5
    tokens, grid = vision.encode_patches(images(3 * patch + 5, 5 * patch), kind="features")
    assert (tokens.shape, grid) == ((2, 15, vision.width), (3, 5))
    with pytest.raises(InputError, match="one token every"):
        vision.check_stride(patch // 2)
    assert isinstance(texts, OpenClipText)
    parent = nn.ModuleList([vision, texts]).train()
    assert [module for module in parent.modules() if module.training] == [parent]


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    directory = write_open_clip(tmp_path)
    weights = directory / "open_clip_model.safetensors"
    weights.rename(directory / "open_clip_pytorch_model.bin")
    with pytest.raises(InputError, match="holds no open_clip_model"):
        load_vision_tower(directory)


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize(
    "size", ["tiny", pytest.param("vit-b-16", marks=pytest.mark.slow, id="ViT-B-16")]
)
def test_embeddings_are_the_librarys(tmp_path: Path, size: str, quick_gelu: bool) -> None:
    """Pooled and patch by patch; the library's tokenizer has its own words, ours the file's."""
    guard_against_torchvision()
    library = pytest.importorskip("open_clip")
    directory = write_open_clip(tmp_path, size=size, quick_gelu=quick_gelu)
    model = library.create_model(f"local-dir:{directory}").eval()
    found = HfClip.from_pretrained(directory)
    ids, mask, _ = found.tokenize(TEXTS)
    side = found.image_size_px
    with torch.inference_mode():
        pooled = F.normalize(model.encode_image(images(side, side)), dim=-1)
        maps = model.visual.forward_intermediates(
            images(side, side), indices=1, normalize_intermediates=True, output_fmt="NLC"
        )["image_intermediates"][0]
        padded = F.pad(ids, (0, found.context_length - ids.shape[1]))
        texts = F.normalize(model.encode_text(padded), dim=-1)
        assert (found.encode_images(images(side, side)) - pooled).abs().max() <= 1e-5
        assert (found.encode_tokens(ids, mask) - texts).abs().max() <= 1e-5
        tokens, _ = found.encode_patches(images(side, side), kind="clip")
    assert (tokens - maps).abs().max() <= 1e-4 * maps.abs().max()
