"""ProxyCLIP against its equations, one pair of patches at a time, in float64."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import references
from checkpoints import write_clip
from foreign_towers import write_resnet, write_vit
from pacl.api import Model, load
from pacl.errors import InputError
from pacl.evaluation.run import as_baseline
from pacl.modeling.towers import VisionTower, load_vision_tower
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.proxy import ProxyClip, proxy_attention
from pacl.modeling.towers.token_kinds import apply_block


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_clip(tmp_path_factory.mktemp("clip") / "clip"), device="cpu")


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> VisionTower:
    return load_vision_tower(write_vit("Dinov2Model", tmp_path_factory.mktemp("dino")))


def upsampled(values: Tensor, grid: tuple[int, int]) -> list[Tensor]:
    """Values (rows, columns, E), bilinear, at the centres of the cells of another grid."""

    def neighbours(cell: int, n_new: int, n: int) -> list[tuple[int, float]]:
        place = max((cell + 0.5) * n / n_new - 0.5, 0.0)
        low = int(place)
        return [(low, 1 - (place - low)), (min(low + 1, n - 1), place - low)]

    found = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            total = torch.zeros_like(values[0, 0])
            for r, weight in neighbours(row, grid[0], values.shape[0]):
                for c, other in neighbours(column, grid[1], values.shape[1]):
                    total = total + weight * other * values[r, c]
            found.append(total)
    return found


def proxyclip_literally(tower: ProxyClip, image: Tensor) -> Tensor:
    """Of an image whose sides are whole patches of both towers, before the final norm."""
    shown, seen = tower.clip.preprocessing, tower.proxy.preprocessing
    colours = []
    for c in range(3):
        own = image[c] * shown.std[c] + shown.mean[c]
        colours.append((own - seen.mean[c]) / seen.std[c])
    features, grid = tower.proxy.encode_patches(torch.stack(colours)[None], kind="features")
    tokens, own_grid = tower.clip.embed_images(image[None], stride_px=None)
    blocks: Any = copy.deepcopy(tower.clip.clip.vision_model.encoder.layers).double()
    tokens = tokens.double()
    for block in blocks[:-1]:
        tokens = apply_block(block, tokens)
    last = blocks[-1]
    values = last.self_attn.v_proj(last.layer_norm1(tokens))[0, 1:].unflatten(0, own_grid)
    mixed = references.proxy_mixture(upsampled(values, grid), list(features[0].double()))
    return last.self_attn.out_proj(torch.stack(mixed))


@pytest.mark.parametrize("size_px", [(56, 112), (168, 56)])
def test_equals_its_equations(model: Model, dino: VisionTower, size_px: tuple[int, int]) -> None:
    torch.manual_seed(3)
    images = torch.randn(2, 3, *size_px)
    tower = ProxyClip(cast(HfClip, model.pacl.encoder), dino)
    found, grid = tower.encode_patches(images, norm=False)
    assert grid == (size_px[0] // 14, size_px[1] // 14)
    for tokens, image in zip(found, images, strict=True):
        expected = proxyclip_literally(tower, image)
        torch.testing.assert_close(tokens.double(), expected, atol=1e-5, rtol=1e-5)


def test_weights_are_masked_and_never_empty() -> None:
    torch.manual_seed(0)
    weights = proxy_attention(torch.randn(2, 20, 6))
    assert (weights == 0).any()
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 20))
    torch.testing.assert_close(proxy_attention(torch.ones(1, 4, 6)), torch.eye(4)[None])


def test_any_second_tower_and_any_size(model: Model, tmp_path: Path) -> None:
    """CLIP's patches are 8 px, the others' 16: an image of 48 x 80 has 3 x 5 of these."""
    for name, write in (("dino", "DINOv3ViTModel"), ("siglip", "SiglipVisionModel"), ("res", "")):
        path = tmp_path / name
        proxy = load_vision_tower(write_vit(write, path) if write else write_resnet(path))
        baseline = as_baseline(model, "proxyclip", engine="torch", proxy=proxy)
        stride = proxy.patch_size_px
        embeds = baseline.patch_embeds(torch.randn(1, 3, 3 * stride, 5 * stride))
        assert embeds.shape == (1, 3, 5, 16)
        assert proxy.source in baseline.describe()
        result = baseline.segment(_image(tmp_path), "house,boat")
        assert result.label_map.shape == (37, 53)


def _image(folder: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (53, 37), "teal").save(folder / "image.png")
    return folder / "image.png"


def test_the_fingerprint_is_of_both_towers(model: Model, dino: VisionTower, tmp_path: Path) -> None:
    other = load_vision_tower(write_vit("Dinov2WithRegistersModel", tmp_path))
    changed = load_vision_tower(_with_another_weight(tmp_path, tmp_path / "changed"))
    proxies = dino, other, changed
    models = [as_baseline(model, "proxyclip", engine="torch", proxy=each) for each in proxies]
    prints = {each.fingerprint for each in models}
    assert len(prints) == 3
    assert all(model.pacl.vision.fingerprint in each for each in prints)
    published = models[0].pacl.as_published(
        normalisation="imagenet", positions="tenth", activation="gelu"
    )
    assert isinstance(published.vision, ProxyClip)
    assert published.fingerprint != models[0].fingerprint
    pixels = torch.randint(256, (1, 3, 28, 28), dtype=torch.uint8)
    factor, offset = published.vision._recolour
    shown = published.vision.normalise(pixels) * factor + offset
    torch.testing.assert_close(shown, dino.preprocessing.normalise(pixels))


def _with_another_weight(directory: Path, target: Path) -> Path:
    shutil.copytree(directory, target)
    weights = load_file(target / "model.safetensors")
    weights["layernorm.bias"][0] += 0.01
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_an_engine_is_refused(model: Model, dino: VisionTower) -> None:
    with pytest.raises(InputError, match="runs the vision tower of a CLIP only"):
        as_baseline(model, "proxyclip", engine="torch-bf16", proxy=dino)
