"""SC-CLIP and RF-CLIP against their equations, one patch and one head at a time."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoints import write_clip
from pacl.api import load
from pacl.errors import InputError
from pacl.evaluation.run import as_baseline
from pacl.modeling.towers import whole_walks as walks
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.token_kinds import apply_block
from pacl.modeling.towers.walk import embed_images
from whole_walks import CHANNELS, MASS, rfclip_literally, scclip_literally


@pytest.fixture(params=[(1, 3, 40, 64), (2, 3, 56, 56)])
def images(request: pytest.FixtureRequest) -> Tensor:
    torch.manual_seed(3)
    return torch.randn(request.param)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> HfClip:
    return HfClip.from_pretrained(write_clip(tmp_path_factory.mktemp("clip") / "clip"))


def first_input(encoder: HfClip, image: Tensor) -> tuple[list[Any], Tensor, tuple[int, int]]:
    """Blocks in float64, the first one's input, and the grid."""
    vision = encoder.clip.vision_model
    tokens, grid = embed_images(vision, image[None], stride_px=encoder.patch_size_px)
    return list(copy.deepcopy(vision.encoder.layers).double()), tokens.double(), grid


def test_scclip_equals_its_equations(encoder: HfClip, images: Tensor) -> None:
    found, _ = encoder.encode_patches(images, kind="scclip", norm=False)
    for tokens, image in zip(found, images, strict=True):
        expected = scclip_literally(*first_input(encoder, image))
        torch.testing.assert_close(tokens.double(), expected, atol=1e-5, rtol=1e-5)


def test_rfclip_equals_its_equations(
    encoder: HfClip, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(walks.CHANNELS, encoder.width, CHANNELS)
    monkeypatch.setattr(walks, "MASS", MASS)
    found, _ = encoder.encode_patches(images, kind="rfclip", norm=False)
    for tokens, image in zip(found, images, strict=True):
        expected = rfclip_literally(*first_input(encoder, image))
        torch.testing.assert_close(tokens.double(), expected, atol=1e-5, rtol=1e-5)
    blocks, tokens, grid = first_input(encoder, images[0])
    drawn = walks.denoise(apply_block(blocks[0], tokens), grid)
    assert (drawn != apply_block(blocks[0], tokens)).any()  # the rule applies here


def test_rfclip_needs_a_tower_whose_channels_are_known(tmp_path: Path) -> None:
    model = load(write_clip(tmp_path / "clip"), device="cpu")
    with pytest.raises(InputError, match="published for OpenAI's ViT-B and ViT-L"):
        as_baseline(model, "rfclip", engine="torch")
    assert as_baseline(model, "scclip", engine="torch").pacl.token_kind == "scclip"
