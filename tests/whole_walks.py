"""SC-CLIP and RF-CLIP by their equations, one patch and one head at a time, in float64.

Each takes the blocks, the first one's input (1, N, E), CLS first, and the grid, and returns the
patch tokens before the final norm.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pacl.modeling.towers.token_kinds import apply_block

CHANNELS, MASS = (2, 5, 11), 1.8
"""RF-CLIP's for these towers; at 5 none of their patches would be drawn."""


def heads(block: Any, tokens: Tensor, name: str) -> Tensor:
    layer = getattr(block.self_attn, f"{name}_proj")
    n_heads = block.self_attn.num_heads
    return layer(block.layer_norm1(tokens)).unflatten(-1, (n_heads, -1)).transpose(0, 1)


def project(block: Any, mixed: list[Tensor]) -> Tensor:
    return block.self_attn.out_proj(torch.cat(mixed, dim=-1))


def cosine_table(patches: Tensor) -> Tensor:
    lengths = torch.stack([patch.norm() for patch in patches])
    return torch.stack([patches @ one / (one.norm() * lengths) for one in patches])


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
    distance = [(patches - one).square().sum(dim=1).tolist() for one in patches]
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
        kept = torch.where(row >= 0.4, row, 0.0)
        rows.append((kept / (kept.sum() + 1e-6)) @ values)
    return torch.stack(rows)


def scclip_literally(blocks: list[Any], tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """The layers 4, 9 and 10 of 12 are 1, 3 and 3 of four, and all 1 of two."""
    after = [tokens]
    for block in blocks[:-1]:
        after.append(apply_block(block, after[-1]))
    x = [each[0] for each in after]  # x[l] after block l
    low, fine, high = {4: (1, 3, 3), 2: (1, 1, 1)}[len(blocks)]
    outliers = outliers_literally(x[-1][1:])
    s = cosine_table(replaced_literally(x[fine][1:], outliers, grid))
    t = cosine_table(x[low][1:])
    fused = sum(x[low + 1 : high + 1], x[low])

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

    y = attend(aggregated(s, replaced_literally(x[-1][1:], outliers, grid))) + 0.3 * x[-1][:1]
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


def rfclip_literally(blocks: list[Any], tokens: Tensor, grid: tuple[int, int]) -> Tensor:

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
