"""Training-free patch tokens that need every block of a CLIP: SC-CLIP and RF-CLIP.

Each function takes the blocks, the first one's input (CLS first) and the patch grid, and gives the
patch tokens before the final norm. x^l are the tokens after block l of L, k the heads of LN1(x) in
the last block, A_S(x) the mean of softmax(k kᵀ/√d) and of a given matrix of weights S, applied to
the heads of v and projected by W_o; R(S) divides each row of S, with all below 0.4 set to 0, by
its sum.

SC-CLIP (2411.15869 and its public code). O are the 5 % of the patches of x^{L-1} that stand out by
local outlier factor (30 neighbours); they become the mean of their neighbours that do not.

    S = cosines of x^9, with O replaced;       T = cosines of x^4
    x = R(S) x^{L-1}, with O replaced;         r = x^4 + ... + x^10
    y = R(T)(A_S(x) + 0.3 CLS(x^{L-1})) + R(T)(A_S(r) + 0.3 CLS(r))

Within A_S, S is 3 (S - mean S), what is negative -∞, softmaxed.

RF-CLIP (2511.16170 and its public code, whose attention is CLIP's own by default). After every
block, patches with more than 5/E of their mass (less the least value) in a channel that draws
attention become 0.6 of themselves and 0.4 of their 3 x 3 mean. K is the mean over blocks of
softmax(k kᵀ/√d), g the mean over blocks of the tokens, C the cosines of g, those
below 0.4 set to 0.

    y = (W_o K v(C x^{L-1}) + W_o K v(C g)) / 2,   the last block's K, k and v of the tokens given

Which channels draw attention is known for OpenAI's ViT-B and ViT-L only.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from pacl.modeling.towers.token_kinds import Block, Grid, apply_block, merge_heads, project_heads

COSINE_MIN = 0.4
N_NEIGHBOURS, OUTLIER_SHARE = 30, 0.05
CLS_SHARE = 0.3
DENOISED_SHARE, MASS = 0.4, 5.0
N_BLOCKS = 12
"""Blocks of the tower that SC-CLIP's layers are numbers of; deeper ones take them in proportion."""
CHANNELS = {
    768: (4, 162, 189, 326, 429, 474, 633, 713),
    1024: (250, 261, 437, 650, 720, 779, 936, 1005),
}
"""RF-CLIP's channels by the tower's width."""


def scclip_tokens(
    blocks: Sequence[Block], tokens: Float[Tensor, "B N E"], grid: Grid
) -> Float[Tensor, "B T E"]:
    """Self-calibrated CLIP (Bai et al.): no block after the last attention but its own output."""
    after: list[Tensor] = []
    *earlier, last = blocks
    for block in earlier:
        tokens = apply_block(block, tokens)
        after.append(tokens)
    first, fine, end = (
        min(max(round(n * len(blocks) / N_BLOCKS), 1), len(after)) - 1 for n in (4, 9, 10)
    )
    is_outlier = torch.stack([find_outliers(each) for each in tokens[:, 1:]])
    cosines = _cosines(replace_patches(after[fine][:, 1:], is_outlier, grid))
    patches = _aggregate(cosines, replace_patches(tokens[:, 1:], is_outlier, grid))
    coarse, fused = _cosines(after[first][:, 1:]), torch.stack(after[first : end + 1]).sum(dim=0)
    total = torch.zeros_like(patches)
    for values, cls in ((patches, tokens[:, :1]), (fused[:, 1:], fused[:, :1])):
        mixed = _attend_by(last, values, cosines) + CLS_SHARE * cls
        total = total + _aggregate(coarse, mixed)
    return total


def find_outliers(patches: Float[Tensor, "T E"]) -> Bool[Tensor, " T"]:
    """Mark the share of an image's patches with the largest local outlier factor.

    As in the public code, distances are squared, a patch is its own nearest and left out, and its
    reach is the distance of its farthest neighbour, for all of them alike.
    """
    n_nearest = min(N_NEIGHBOURS, len(patches) - 1)
    if n_nearest < 1:
        return torch.zeros(len(patches), dtype=torch.bool, device=patches.device)
    exact = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(patches, patches, compute_mode=exact).square()
    nearest, which = distances.topk(n_nearest + 1, largest=False)
    nearest, which = nearest[:, 1:], which[:, 1:]
    density = 1 / nearest[:, -1]
    factor = (density[which] / density[:, None]).mean(dim=1)
    return factor > factor.float().quantile(1 - OUTLIER_SHARE)


def replace_patches(
    patches: Float[Tensor, "B T E"], is_replaced: Bool[Tensor, "B T"], grid: Grid
) -> Float[Tensor, "B T E"]:
    """Replace patches by the mean of those of their 8 neighbours that are not replaced."""
    kept = (~is_replaced).to(patches.dtype).unflatten(1, grid)[:, None]
    values = patches.mT.unflatten(2, grid)
    kernel = patches.new_ones(1, 1, 3, 3)
    kernel[0, 0, 1, 1] = 0
    counts = F.conv2d(kept, kernel, padding=1)
    sums = F.conv2d((values * kept).flatten(0, 1)[:, None], kernel, padding=1)
    means = sums.view_as(values) / counts.clamp(min=1)
    is_replaced = is_replaced.unflatten(1, grid)[:, None] & (counts > 0)
    return torch.where(is_replaced, means, values).flatten(2).mT


def _attend_by(
    block: Block, patches: Float[Tensor, "B T E"], cosines: Float[Tensor, "B T T"]
) -> Float[Tensor, "B T E"]:
    """A_S: half by the given cosines, half by key-key attention."""
    _, key, value = project_heads(block, patches)
    scaled = 3 * (cosines - cosines.mean(dim=(1, 2), keepdim=True))
    weights = scaled.masked_fill(scaled < 0, -torch.inf).softmax(dim=2)[:, None]
    mixed = weights @ value + F.scaled_dot_product_attention(key, key, value)
    return merge_heads(mixed / 2, block.self_attn)


def _aggregate(
    cosines: Float[Tensor, "B T T"], values: Float[Tensor, "B T E"]
) -> Float[Tensor, "B T E"]:
    """R(S) applied to values."""
    kept = cosines.where(cosines >= COSINE_MIN, 0)
    return (kept / (kept.sum(dim=2, keepdim=True) + 1e-6)) @ values


def _cosines(patches: Float[Tensor, "B T E"]) -> Float[Tensor, "B T T"]:
    unit = F.normalize(patches, dim=-1)
    return unit @ unit.mT


def rfclip_tokens(
    blocks: Sequence[Block], tokens: Float[Tensor, "B N E"], grid: Grid
) -> Float[Tensor, "B T E"]:
    """Refocusing CLIP (Li et al.).

    Raises:
        ValueError: The tower's width is none whose channels are published.
    """
    if tokens.shape[-1] not in CHANNELS:
        raise ValueError(
            f"rfclip knows the channels of towers {' and '.join(map(str, CHANNELS))} wide, "
            f"not {tokens.shape[-1]}"
        )
    *earlier, last = blocks
    guide, keys = torch.zeros_like(tokens), 0.0
    for block in earlier:
        keys = keys + _key_attention(block, tokens)
        tokens = denoise(apply_block(block, tokens), grid)
        guide = guide + tokens
    guide = (guide + denoise(apply_block(last, tokens), grid)) / len(blocks)
    cosines = _cosines(guide[:, 1:])
    likeness = cosines.where(cosines >= COSINE_MIN, 0)
    total: Any = 0.0
    for each in (tokens, guide):
        focused = torch.cat([each[:, :1], likeness @ each[:, 1:]], dim=1)
        weights = (keys + _key_attention(last, focused)) / len(blocks)
        _, _, value = project_heads(last, focused)
        total = total + merge_heads(weights @ value[:, :, 1:], last.self_attn)
    return total / 2


def denoise(tokens: Float[Tensor, "B N E"], grid: Grid) -> Float[Tensor, "B N E"]:
    """Draw patches whose mass lies in few known channels towards their surroundings."""
    patches = tokens[:, 1:]
    mass = patches - patches.amin(dim=-1, keepdim=True)
    mass = mass / mass.sum(dim=-1, keepdim=True).clamp(min=1e-8)
    width = tokens.shape[-1]
    is_drawn = mass[..., list(CHANNELS[width])].amax(dim=-1) > MASS / width
    means = F.avg_pool2d(patches.mT.unflatten(2, grid), 3, stride=1, padding=1).flatten(2).mT
    drawn = torch.where(is_drawn[..., None], means, patches)
    return torch.cat([tokens[:, :1], torch.lerp(patches, drawn, DENOISED_SHARE)], dim=1)


def _key_attention(block: Block, tokens: Float[Tensor, "B N E"]) -> Float[Tensor, "B heads T T"]:
    """Key-key attention between patches, of a softmax over CLS too."""
    _, key, _ = project_heads(block, tokens)
    weights = (key @ key.mT * key.shape[-1] ** -0.5).softmax(dim=-1)
    return weights[:, :, 1:, 1:]


WHOLE_WALKS: dict[str, Callable[[Sequence[Block], Tensor, Grid], Tensor]] = {
    "scclip": scclip_tokens,
    "rfclip": rfclip_tokens,
}
"""The kinds of patch tokens that are made of all blocks, by the name that `--baseline` takes."""

NEED_GRID = ("naclip", *WHOLE_WALKS)
"""The kinds of patch tokens that ask where each patch lies."""
