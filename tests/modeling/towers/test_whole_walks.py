"""SC-CLIP and RF-CLIP against their equations, one patch and one head at a time, in float64."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoints import write_clip
from pacl.api import load
from pacl.errors import InputError
from pacl.evaluation.run import as_baseline
from pacl.modeling.towers import whole_walks
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.token_kinds import apply_block
from pacl.modeling.towers.walk import embed_images

CHANNELS, MASS = (2, 5, 11), 1.8
"""RF-CLIP's for this tower; at 5 none of these patches would be drawn."""


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


def heads(block: Any, tokens: Tensor, name: str) -> Tensor:
    layer = getattr(block.self_attn, f"{name}_proj")
    n_heads = block.self_attn.num_heads
    return layer(block.layer_norm1(tokens)).unflatten(-1, (n_heads, -1)).transpose(0, 1)


def project(block: Any, mixed: list[Tensor]) -> Tensor:
    return block.self_attn.out_proj(torch.cat(mixed, dim=-1))


def cosine_table(patches: Tensor) -> Tensor:
    table = torch.zeros(len(patches), len(patches), dtype=patches.dtype)
    for i, one in enumerate(patches):
        for j, other in enumerate(patches):
            table[i, j] = one @ other / (one.norm() * other.norm())
    return table


def around(place: int, grid: tuple[int, int], *, with_self: bool) -> list[int]:
    row, column = divmod(place, grid[1])
    return [
        r * grid[1] + c
        for r in range(max(row - 1, 0), min(row + 2, grid[0]))
        for c in range(max(column - 1, 0), min(column + 2, grid[1]))
        if with_self or (r, c) != (row, column)
    ]


def outliers_literally(patches: Tensor) -> list[int]:
    n, k = len(patches), min(30, len(patches) - 1)
    distance = [[float((a - b).norm() ** 2) for b in patches] for a in patches]
    nearest = [sorted(range(n), key=lambda j, i=i: distance[i][j])[1 : k + 1] for i in range(n)]
    density = []
    for i in range(n):
        farthest = max(distance[i][j] for j in nearest[i])
        density.append(k / (sum(max(distance[i][j], farthest) for j in nearest[i]) / k))
    factor = torch.tensor([sum(density[j] / density[i] for j in nearest[i]) / k for i in range(n)])
    limit = factor.quantile(0.95)
    return [i for i in range(n) if factor[i] > limit]


def replaced_literally(patches: Tensor, outliers: list[int], grid: tuple[int, int]) -> Tensor:
    result = patches.clone()
    for place in outliers:
        good = [j for j in around(place, grid, with_self=False) if j not in outliers]
        if good:
            result[place] = torch.stack([patches[j] for j in good]).mean(dim=0)
    return result


def aggregated(table: Tensor, values: Tensor) -> Tensor:
    rows = []
    for row in table:
        kept = torch.tensor([float(c) if c >= 0.4 else 0.0 for c in row], dtype=values.dtype)
        rows.append((kept / (kept.sum() + 1e-6)) @ values)
    return torch.stack(rows)


def scclip_literally(encoder: HfClip, image: Tensor) -> Tensor:
    """The layers 4, 9 and 10 of 12 are 1, 3 and 3 of the four here."""
    blocks, tokens, grid = first_input(encoder, image)
    after = [tokens]
    for block in blocks[:-1]:
        after.append(apply_block(block, after[-1]))
    x = [each[0] for each in after]  # x[l] after block l
    outliers = outliers_literally(x[3][1:])
    s = cosine_table(replaced_literally(x[3][1:], outliers, grid))
    t = cosine_table(x[1][1:])
    fused = x[1] + x[2] + x[3]

    def attend(values: Tensor) -> Tensor:
        given = 3 * (s - s.mean())
        given = torch.where(given < 0, -torch.inf, given).softmax(dim=1)
        mixed = []
        for k, v in zip(
            heads(blocks[-1], values, "k"), heads(blocks[-1], values, "v"), strict=True
        ):
            own = (k @ k.T / math.sqrt(k.shape[1])).softmax(dim=1)
            mixed.append((given + own) / 2 @ v)
        return project(blocks[-1], mixed)

    y = attend(aggregated(s, replaced_literally(x[3][1:], outliers, grid))) + 0.3 * x[3][:1]
    z = attend(fused[1:]) + 0.3 * fused[:1]
    return aggregated(t, y) + aggregated(t, z)


def denoised_literally(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    patches, result = tokens[1:], tokens.clone()
    width = tokens.shape[1]
    for place, patch in enumerate(patches):
        mass = (patch - patch.min()) / (patch - patch.min()).sum()
        if max(mass[c] for c in CHANNELS) > MASS / width:
            mean = sum(patches[j] for j in around(place, grid, with_self=True)) / 9
            result[place + 1] = 0.6 * patch + 0.4 * mean
    return result


def rfclip_literally(encoder: HfClip, image: Tensor) -> Tensor:
    blocks, tokens, grid = first_input(encoder, image)

    def keys(block: Any, x: Tensor) -> list[Tensor]:
        tables = []
        for k in heads(block, x, "k"):
            tables.append((k @ k.T / math.sqrt(k.shape[1])).softmax(dim=1)[1:, 1:])
        return tables

    x, of_keys, guides = tokens[0], [], []
    for block in blocks[:-1]:
        of_keys.append(keys(block, x))
        x = denoised_literally(apply_block(block, x[None])[0], grid)
        guides.append(x)
    guides.append(denoised_literally(apply_block(blocks[-1], x[None])[0], grid))
    guide = torch.stack(guides).mean(dim=0)
    table = cosine_table(guide[1:])
    table = torch.where(table < 0.4, 0.0, table)
    outputs = []
    for each in (x, guide):
        focused = torch.cat([each[:1], table @ each[1:]])
        tables = [*of_keys, keys(blocks[-1], focused)]
        values = heads(blocks[-1], focused, "v")
        mixed = [
            torch.stack([of_block[h] for of_block in tables]).mean(dim=0) @ v[1:]
            for h, v in enumerate(values)
        ]
        outputs.append(project(blocks[-1], mixed))
    return torch.stack(outputs).mean(dim=0)


def test_scclip_equals_its_equations(encoder: HfClip, images: Tensor) -> None:
    found, _ = encoder.encode_patches(images, kind="scclip", norm=False)
    for tokens, image in zip(found, images, strict=True):
        expected = scclip_literally(encoder, image)
        torch.testing.assert_close(tokens.double(), expected, atol=1e-5, rtol=1e-5)


def test_rfclip_equals_its_equations(
    encoder: HfClip, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(whole_walks.CHANNELS, encoder.width, CHANNELS)
    monkeypatch.setattr(whole_walks, "MASS", MASS)
    found, _ = encoder.encode_patches(images, kind="rfclip", norm=False)
    for tokens, image in zip(found, images, strict=True):
        expected = rfclip_literally(encoder, image)
        torch.testing.assert_close(tokens.double(), expected, atol=1e-5, rtol=1e-5)
    blocks, tokens, grid = first_input(encoder, images[0])
    drawn = whole_walks.denoise(apply_block(blocks[0], tokens), grid)
    assert (drawn != apply_block(blocks[0], tokens)).any()  # the rule applies here


def test_rfclip_needs_a_tower_whose_channels_are_known(tmp_path: Path) -> None:
    model = load(write_clip(tmp_path / "clip"), device="cpu")
    with pytest.raises(InputError, match="published for OpenAI's ViT-B and ViT-L"):
        as_baseline(model, "rfclip", engine="torch")
    assert as_baseline(model, "scclip", engine="torch").pacl.token_kind == "scclip"
