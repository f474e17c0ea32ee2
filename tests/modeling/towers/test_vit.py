"""Vision transformers of other families: patch tokens are the library's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import pacl
from foreign_towers import VITS, write_vit
from pacl.errors import InputError
from pacl.modeling.towers import load_text_tower, load_vision_tower
from pacl.modeling.towers.vit import VitTower

PREFIXES = {
    "ViTModel": 1,
    "Dinov2Model": 1,
    "Dinov2WithRegistersModel": 5,
    "DINOv3ViTModel": 5,
    "SiglipVisionModel": 0,
    "Tipsv2VisionModel": 2,
    "RadioModel": 10,
}
FAMILIES = pytest.mark.parametrize("name", VITS)


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[VitTower, Any]]:
    """Of each family, our tower and the library's model, from the same files."""
    found = {}
    for name in VITS:
        directory = write_vit(name, tmp_path_factory.mktemp(name))
        tower = load_vision_tower(directory)
        assert isinstance(tower, VitTower)
        found[name] = tower, getattr(transformers, name).from_pretrained(directory).eval()
    return found


def library_tokens(model: Any, images: Tensor, n_prefix: int) -> Tensor:
    """Tokens as the library makes them, without those before the patches."""
    asks = type(model).__name__ == "ViTModel" or "Siglip" in type(model).__name__
    options = {"interpolate_pos_encoding": True} if asks else {}
    with torch.no_grad():
        return model(images, **options).last_hidden_state[:, n_prefix:]


def images(*size: int) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))


@FAMILIES
def test_tokens_are_the_librarys(towers: dict[str, Any], name: str) -> None:
    tower, model = towers[name]
    p = tower.patch_size_px
    assert tower.n_prefix == PREFIXES[name]
    for rows, columns in (tower.image_size_px // p,) * 2, (2, 5), (7, 6):
        x = images(rows * p, columns * p)
        expected = library_tokens(model, x, PREFIXES[name])
        found, grid = tower.encode_patches(x)
        assert grid == (rows, columns)
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@FAMILIES
def test_a_rest_too_narrow_for_a_patch_is_left_out(towers: dict[str, Any], name: str) -> None:
    tower, _ = towers[name]
    p = tower.patch_size_px
    if tower.family.positions is None:
        return  # the library rotates by the whole size
    found, grid = tower.encode_patches(images(3 * p + 3, 2 * p + 5))
    exact, _ = tower.encode_patches(images(3 * p + 3, 2 * p + 5)[..., : 3 * p, : 2 * p])
    assert grid == (3, 2)
    torch.testing.assert_close(found, exact)


@FAMILIES
def test_a_parent_in_training_mode_changes_nothing(towers: dict[str, Any], name: str) -> None:
    tower, _ = towers[name]
    x, parent = images(64, 64), nn.ModuleList([tower])
    parent.eval()
    expected, _ = tower.encode_patches(x)
    parent.train()
    found, _ = tower.encode_patches(x)
    assert torch.equal(found, expected)


@FAMILIES
def test_earlier_layers_with_and_without_the_norm(towers: dict[str, Any], name: str) -> None:
    tower, model = towers[name]
    p = tower.patch_size_px
    x = images(2 * p, 3 * p)
    plain, _ = tower.encode_patches(x, norm=False)
    normed, _ = tower.encode_patches(x)
    torch.testing.assert_close(tower.family.norm(tower.model)(plain), normed)
    states: list[Tensor] = []
    block = tower.family.blocks(model)[-2]
    handle = block.register_forward_hook(lambda module, inputs, output: states.append(output))
    library_tokens(model, x, 0)
    handle.remove()
    state = states[0] if isinstance(states[0], Tensor) else states[0][0]
    found, _ = tower.encode_patches(x, layer=-2, norm=False)
    torch.testing.assert_close(found, state[:, tower.n_prefix :], atol=1e-4, rtol=1e-4)


@FAMILIES
def test_strides(towers: dict[str, Any], name: str) -> None:
    """Every second patch of half the stride lies where a patch of the whole stride lies."""
    tower, _ = towers[name]
    p = tower.patch_size_px
    x = images(3 * p, 4 * p)
    if tower.family.positions is None:
        with pytest.raises(InputError, match="rotates its tokens"):
            tower.encode_patches(x, stride_px=p // 2)
        return
    tokens, grid = tower._embed(x, p)
    fine, fine_grid = tower._embed(x, p // 2)
    assert (grid, fine_grid) == ((3, 4), (5, 7))
    strided = fine[:, tower.n_prefix :].unflatten(1, fine_grid)[:, ::2, ::2]
    whole = tokens[:, tower.n_prefix :].unflatten(1, grid)
    torch.testing.assert_close(strided, whole, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="leaves gaps"):
        tower.encode_patches(x, stride_px=p + 1)


@FAMILIES
def test_dense_kinds_run_and_differ(towers: dict[str, Any], name: str) -> None:
    tower, _ = towers[name]
    x = images(2 * tower.patch_size_px, 3 * tower.patch_size_px)
    tokens = {kind: tower.encode_patches(x, kind=kind)[0] for kind in tower.token_kinds}
    kinds = list(tokens)
    assert all(each.shape == (2, 6, tower.width) for each in tokens.values())
    for other in kinds[1:]:
        assert not torch.allclose(tokens[kinds[0]], tokens[other])
    with pytest.raises(ValueError, match="kind must be one of"):
        tower.encode_patches(x, kind="clip")


@pytest.mark.parametrize("name", ["SiglipModel", "Tipsv2Model"])
def test_the_vision_half_of_a_pair(tmp_path: Path, name: str) -> None:
    directory = write_vit(name, tmp_path)
    tower = load_vision_tower(directory)
    model = getattr(transformers, name).from_pretrained(directory).eval().vision_model
    x = images(tower.image_size_px, tower.image_size_px)
    n_prefix = tower.n_prefix if isinstance(tower, VitTower) else -1
    expected = library_tokens(model, x, n_prefix)
    found, _ = tower.encode_patches(x, kind="features")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_dinos_checkpoints_have_no_pooler(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    directory = write_vit("ViTModel", tmp_path)
    path, x = directory / "model.safetensors", images(32, 48)
    expected, _ = load_vision_tower(directory).encode_patches(x, kind="features")
    weights = {name: w for name, w in load_file(path).items() if not name.startswith("pooler")}
    save_file(weights, path, metadata={"format": "pt"})
    found, _ = load_vision_tower(directory).encode_patches(x, kind="features")
    assert torch.equal(found, expected)


def test_a_checkpoint_with_a_weight_missing_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    directory = write_vit("Dinov2Model", tmp_path)
    weights = load_file(directory / "model.safetensors")
    lost = next(name for name in weights if "norm1.weight" in name)
    del weights[lost]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="not those that its config"):
        load_vision_tower(directory)


@pytest.mark.parametrize("name", ["siglip2", "siglip2_vision_model"])
def test_naflex_is_refused(tmp_path: Path, name: str) -> None:
    directory = write_vit("SiglipModel", tmp_path)
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": name}))
    for load in (load_vision_tower, load_text_tower, pacl.load):
        with pytest.raises(InputError, match="NaFlex"):
            load(directory)
