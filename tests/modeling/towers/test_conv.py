"""Convolutional towers: tokens are the library's feature maps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import EfficientNetModel, ResNetModel

from checkpoints import write_clip
from foreign_towers import WIDTHS, write_efficientnet, write_resnet
from pacl.errors import InputError
from pacl.modeling.towers.conv import ConvTower
from pacl.modeling.towers.load import load_vision_tower


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def tokens_of(each: Tensor) -> Tensor:
    return each.flatten(2).transpose(1, 2)


def test_tokens_are_the_librarys_last_map(tmp_path: Path) -> None:
    directory = write_resnet(tmp_path)
    tower = ConvTower.from_pretrained(directory)
    assert (tower.width, tower.patch_size_px, tower.image_size_px) == (WIDTHS[-1], 16, 32)
    x = images(2, 3, 64, 96)
    library = ResNetModel.from_pretrained(directory).eval()
    with torch.no_grad():
        expected = library(x, output_hidden_states=True).hidden_states[-1]
    found, grid = tower.encode_patches(x, kind="features", stride_px=16)
    assert grid == (4, 6)
    torch.testing.assert_close(found, tokens_of(expected), atol=1e-5, rtol=0)


def test_several_maps_are_enlarged_to_the_finest(tmp_path: Path) -> None:
    directory = write_resnet(tmp_path)
    (directory / "tower.json").write_text(json.dumps({"layers": [2, 3]}))
    tower = ConvTower.from_pretrained(directory)
    assert (tower.width, tower.patch_size_px) == (WIDTHS[1] + WIDTHS[2], 8)
    x = images(1, 3, 32, 48)
    with torch.no_grad():
        states = ResNetModel.from_pretrained(directory).eval()(x, output_hidden_states=True)
    fine, coarse = states.hidden_states[2], states.hidden_states[3]
    coarse = F.interpolate(coarse, size=(4, 6), mode="bilinear", align_corners=False)
    found, grid = tower.encode_patches(x, kind="features")
    assert grid == (4, 6)
    expected = tokens_of(torch.cat([fine, coarse], dim=1))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_dilated_map_holds_the_plain_one(tmp_path: Path) -> None:
    """Far from the border, every second place of the last map, dilated once, is the plain map."""
    plain = EfficientNetModel.from_pretrained(write_efficientnet(tmp_path / "plain")).eval()
    tower = ConvTower.from_pretrained(write_efficientnet(tmp_path / "dilated", stride_px=8))
    assert tower.patch_size_px == 8
    for module in [*plain.modules(), *tower.modules()]:
        if type(module).__name__ == "EfficientNetSqueezeExciteLayer":
            torch.nn.init.zeros_(module.get_submodule("expand").get_parameter("weight"))
    x = images(1, 3, 128, 128)
    with torch.no_grad():
        expected = plain(x, output_hidden_states=True).hidden_states[-1]
    found, grid = tower.encode_patches(x, kind="features")
    assert grid == (16, 16)
    dense = found.transpose(1, 2).unflatten(2, grid)
    # The stride-2 window starts at 2i and is centred at 2i + 1.
    torch.testing.assert_close(
        dense[..., 1:-1:2, 1:-1:2], expected[..., :-1, :-1], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": [9]}, "has 4 hidden states"),
        ({"stride_px": 8}, "dilates an EfficientNet only"),
    ],
)
def test_impossible_settings_are_refused(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    (write_resnet(tmp_path) / "tower.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=message):
        ConvTower.from_pretrained(tmp_path)


def test_a_stride_it_cannot_do_is_one_clear_error(tmp_path: Path) -> None:
    tower = ConvTower.from_pretrained(write_resnet(tmp_path))
    with pytest.raises(InputError, match=r"(?s)stride 4 px.*one token every 16 px.*fix: "):
        tower.encode_patches(images(1, 3, 32, 32), kind="features", stride_px=4)


def test_it_stays_frozen_and_settings_change_its_fingerprint(tmp_path: Path) -> None:
    directory = write_efficientnet(tmp_path)
    tower = ConvTower.from_pretrained(directory)
    assert not any(module.training for module in tower.train().modules())
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    prints = {tower.fingerprint}
    for settings in ({"layers": [3]}, {"stride_px": 8}, {"layers": [3], "stride_px": 4}):
        (directory / "tower.json").write_text(json.dumps(settings))
        prints.add(ConvTower.from_pretrained(directory).fingerprint)
    assert len(prints) == 4


def test_a_checkpoint_says_which_tower_it_is(tmp_path: Path) -> None:
    assert load_vision_tower(write_clip(tmp_path / "clip")).token_kinds[0] == "clip"
    assert load_vision_tower(write_resnet(tmp_path / "resnet")).token_kinds == ("features",)
