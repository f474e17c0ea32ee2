"""The last block's five kinds against literal references: loops over heads and tokens, float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from checkpoints import write_clip
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.token_kinds import TOKEN_KINDS, apply_block
from pacl.modeling.towers.walk import embed_images

Case = tuple[HfClip, Tensor]

# Which projections meet in each kind's attention; MaskCLIP has none.
PAIRS = {
    "clip": ["qk"],
    "maskclip": [],
    "sclip": ["qq", "kk"],
    "clearclip": ["qq"],
    "naclip": ["kk"],
}


IMAGE_SHAPES = {
    "tiny": (1, 3, 24, 40),  # not square
    "vit-b-16": (1, 3, 224, 224),
    "vit-l-14": (1, 3, 70, 98),  # few patches: the literal loops over 16 heads are slow
}


@pytest.fixture(
    scope="module",
    params=["tiny", *(pytest.param(s, marks=pytest.mark.slow) for s in ("vit-b-16", "vit-l-14"))],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Case:
    """An encoder and one image for it."""
    path: Path = tmp_path_factory.mktemp(request.param)
    encoder = HfClip.from_pretrained(write_clip(path, size=request.param))
    (path / "model.safetensors").unlink()  # hundreds of MB that pytest would keep
    torch.manual_seed(1)
    return encoder, torch.randn(IMAGE_SHAPES[request.param])


def tokens_before_last_block(encoder: HfClip, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    vision = encoder.clip.vision_model
    tokens, grid = embed_images(vision, images, stride_px=encoder.patch_size_px)
    for block in vision.encoder.layers[:-1]:
        tokens = apply_block(block, tokens)
    return tokens, grid


def linear(layer: Any, x: Tensor) -> Tensor:
    return x @ layer.weight.double().T + layer.bias.double()


def layer_norm(layer: Any, x: Tensor) -> Tensor:
    mean = x.mean(dim=-1, keepdim=True)
    variance = (x - mean).square().mean(dim=-1, keepdim=True)
    return (x - mean) / (variance + layer.eps).sqrt() * layer.weight.double() + layer.bias.double()


def feed_forward(block: Any, x: Tensor) -> Tensor:
    hidden = linear(block.mlp.fc1, layer_norm(block.layer_norm2, x))
    return linear(block.mlp.fc2, hidden / (1 + (-1.702 * hidden).exp()))  # QuickGELU


def softmax_of(scores: Tensor) -> Tensor:
    powers = (scores - scores.max()).exp()
    return powers / powers.sum()


def gaussian_prior(i: int, grid: tuple[int, int], n_tokens: int) -> Tensor:
    """NACLIP's ω for one query token: 0 for CLS and to CLS, else exp(-distance²/2σ²), σ = 5."""
    prior = torch.zeros(n_tokens, dtype=torch.float64)
    for j in range(1, n_tokens):
        if i > 0:
            rows = (i - 1) // grid[1] - (j - 1) // grid[1]
            columns = (i - 1) % grid[1] - (j - 1) % grid[1]
            prior[j] = math.exp(-(rows**2 + columns**2) / (2 * 5.0**2))
    return prior


def attend_literally(block: Any, tokens: Tensor, grid: tuple[int, int], kind: str) -> Tensor:
    """W_o times the concatenated heads, one head and one token at a time; tokens (N, E)."""
    attention = block.self_attn
    normed = layer_norm(block.layer_norm1, tokens)
    rows = {name: linear(getattr(attention, f"{name}_proj"), normed) for name in "qkv"}
    n_tokens, width = tokens.shape
    d = width // attention.num_heads
    mixed = torch.zeros_like(tokens)
    for i in range(n_tokens):
        prior = gaussian_prior(i, grid, n_tokens) if kind == "naclip" else 0
        for head in range(attention.num_heads):
            s = slice(head * d, (head + 1) * d)
            weights = torch.zeros(n_tokens, dtype=torch.float64)
            if kind == "maskclip":
                weights[i] = 1
            for a, b in PAIRS[kind]:
                weights += softmax_of(rows[b][:, s] @ rows[a][i, s] / math.sqrt(d) + prior)
            mixed[i, s] = weights @ rows["v"][:, s]
    return linear(attention.out_proj, mixed)


def last_block_literally(block: Any, tokens: Tensor, grid: tuple[int, int], kind: str) -> Tensor:
    attended = attend_literally(block, tokens, grid, kind)
    if kind in ("clearclip", "naclip"):
        return attended
    residual = tokens + attended
    return residual + feed_forward(block, residual)


@pytest.mark.parametrize("kind", list(TOKEN_KINDS))
def test_kind_equals_its_equation(case: Case, kind: str) -> None:
    encoder, images = case
    vision = encoder.clip.vision_model
    tokens, grid = tokens_before_last_block(encoder, images)
    after = last_block_literally(vision.encoder.layers[-1], tokens[0].double(), grid, kind)
    raw, raw_grid = encoder.encode_patches(images, kind=kind, norm=False)
    assert raw_grid == grid
    torch.testing.assert_close(raw[0].double(), after[1:], atol=1e-5, rtol=1e-5)
    normed, _ = encoder.encode_patches(images, kind=kind)
    expected = layer_norm(vision.post_layernorm, after[1:])
    torch.testing.assert_close(normed[0].double(), expected, atol=1e-5, rtol=1e-5)


def test_cls_of_the_original_attention_is_clips_own_embedding(case: Case) -> None:
    encoder, images = case
    vision = encoder.clip.vision_model
    tokens, grid = tokens_before_last_block(encoder, images)
    after = last_block_literally(vision.encoder.layers[-1], tokens[0].double(), grid, "clip")
    cls = layer_norm(vision.post_layernorm, after[0])
    embed = F.normalize(cls @ encoder.clip.visual_projection.weight.double().T, dim=-1)
    torch.testing.assert_close(encoder.encode_images(images)[0].double(), embed, atol=1e-5, rtol=0)


def test_kinds_differ(tmp_path: Path) -> None:
    encoder = HfClip.from_pretrained(write_clip(tmp_path))
    images = torch.randn(1, 3, 32, 32)
    tokens = [encoder.encode_patches(images, kind=kind)[0] for kind in TOKEN_KINDS]
    for i, one in enumerate(tokens):
        for other in tokens[i + 1 :]:
            assert (one - other).abs().max() > 1e-2


@pytest.mark.parametrize("kind", list(TOKEN_KINDS))
def test_kind_at_another_stride_and_in_a_batch(tmp_path: Path, kind: str) -> None:
    encoder = HfClip.from_pretrained(write_clip(tmp_path))
    images = torch.randn(3, 3, 24, 40)
    tokens, grid = encoder.encode_patches(images, kind=kind, stride_px=4)
    assert grid == (5, 9)
    assert tokens.shape == (3, 45, encoder.width)
    alone, _ = encoder.encode_patches(images[1:2], kind=kind, stride_px=4)
    torch.testing.assert_close(tokens[1:2], alone)


def test_kind_applies_to_the_last_block_that_runs(tmp_path: Path) -> None:
    encoder = HfClip.from_pretrained(write_clip(tmp_path))
    images = torch.randn(1, 3, 32, 32)
    earlier, _ = encoder.encode_patches(images, kind="maskclip", layer=-2, norm=False)
    vision = encoder.clip.vision_model
    tokens, grid = embed_images(vision, images, stride_px=8)
    *earlier_blocks, block = vision.encoder.layers[:-1]
    for each in earlier_blocks:
        tokens = apply_block(each, tokens)
    expected = TOKEN_KINDS["maskclip"](block, tokens, grid)
    torch.testing.assert_close(earlier, expected[:, 1:])


def test_bfloat16_gradient_on_a_cpu_agrees_with_float32(tmp_path: Path) -> None:
    """The detour through float32 attention must not change what is computed."""
    encoder = HfClip.from_pretrained(write_clip(tmp_path))
    encoder.unfreeze({"vision"})
    images = torch.randn(4, 3, 32, 32)
    gradients = []
    for enabled in (False, True):
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = encoder.encode_images(images).float()[:, :3].sum()
        loss.backward()
        kernel = encoder.clip.vision_model.encoder.layers[0].self_attn.q_proj.weight
        gradients.append(kernel.grad.clone())
    assert F.cosine_similarity(*(g.flatten() for g in gradients), dim=0) > 0.99
