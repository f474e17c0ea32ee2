"""The last block, five ways: CLIP itself and the training-free dense baselines.

Each function takes one pre-norm transformer block of a CLIP vision tower (read with transformers:
`layer_norm1`, `self_attn`, `layer_norm2`, `mlp`; `families.py` gives the blocks of other families
these names), all its input tokens, CLS and registers first, and the patch grid, and returns the
tokens after the block. Written from the equations of the papers, with q, k, v the heads of LN1(x),
d the width of a head, and W_o the output projection:

    clip       y = x + W_o softmax(q kᵀ/√d) v;                 y + MLP(LN2(y))      CLIP
    maskclip   y = x + W_o v;                                  y + MLP(LN2(y))      2112.01071
    sclip      y = x + W_o (softmax(q qᵀ/√d) + softmax(k kᵀ/√d)) v; y + MLP(LN2(y)) 2312.01597
    clearclip  W_o softmax(q qᵀ/√d) v                                               2407.12442
    naclip     W_o softmax(k kᵀ/√d + ω) v,  ω_ij = exp(-|p_i - p_j|²/2σ²), σ = 5    2404.08181

In NACLIP p is a patch's (row, column), and ω is 0 for the pairs with CLS or a register.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int]
Block = Any
"""A transformers `CLIPEncoderLayer`; typed only by the submodules named above."""

NEIGHBOURHOOD_STD = 5.0
"""Width of NACLIP's Gaussian, in patches (its paper's value for every data set)."""


def apply_block(
    block: Block,
    tokens: Float[Tensor, "B N E"],
    *,
    is_causal: bool = False,
    n_queries: int | None = None,
) -> Float[Tensor, "B Q E"]:
    """Run one transformer block as CLIP does, vision or text.

    Args:
        block: A transformers `CLIPEncoderLayer`.
        tokens: Its input.
        is_causal: Whether a token sees only itself and those before it (the text tower).
        n_queries: Only the first so many tokens are wanted; they still attend to all. None: all.

    Returns:
        The first `n_queries` tokens after the block.
    """
    attention = block.self_attn
    normed = block.layer_norm1(tokens)
    query = _heads(attention.q_proj(normed[:, :n_queries]), attention)
    key, value = (
        _heads(attention.k_proj(normed), attention),
        _heads(attention.v_proj(normed), attention),
    )
    mixed = _attend(query, key, value, is_causal=is_causal)
    return _residuals(block, tokens[:, :n_queries], merge_heads(mixed, attention))


def clip_block(block: Block, tokens: Float[Tensor, "B N E"], grid: Grid) -> Float[Tensor, "B N E"]:
    """CLIP's own last block; its patch tokens were never trained to mean anything by themselves."""
    return apply_block(block, tokens)


def maskclip_block(
    block: Block, tokens: Float[Tensor, "B N E"], grid: Grid
) -> Float[Tensor, "B N E"]:
    """MaskCLIP (Zhou et al., section 3.2): every token keeps its own value, no attention."""
    attention = block.self_attn
    return _residuals(
        block, tokens, attention.out_proj(attention.v_proj(block.layer_norm1(tokens)))
    )


def sclip_block(block: Block, tokens: Float[Tensor, "B N E"], grid: Grid) -> Float[Tensor, "B N E"]:
    """SCLIP (Wang et al., section 3.2): query-query plus key-key attention, each a full softmax."""
    attention = block.self_attn
    query, key, value = project_heads(block, tokens)
    mixed = F.scaled_dot_product_attention(query, query, value)
    mixed = mixed + F.scaled_dot_product_attention(key, key, value)
    return _residuals(block, tokens, merge_heads(mixed, attention))


def clearclip_block(
    block: Block, tokens: Float[Tensor, "B N E"], grid: Grid
) -> Float[Tensor, "B N E"]:
    """ClearCLIP (Lan et al., section 3.3): query-query attention, no residual, no feed-forward."""
    query, _, value = project_heads(block, tokens)
    return merge_heads(F.scaled_dot_product_attention(query, query, value), block.self_attn)


def naclip_block(
    block: Block, tokens: Float[Tensor, "B N E"], grid: Grid
) -> Float[Tensor, "B N E"]:
    """NACLIP (Hajimiri et al., section 3): key-key attention drawn to the neighbourhood.

    No residual and no feed-forward, the paper's reduced last block.
    """
    _, key, value = project_heads(block, tokens)
    n_prefix = tokens.shape[1] - grid[0] * grid[1]
    prior = F.pad(neighbourhood(grid, like=key), (n_prefix, 0, n_prefix, 0))
    return merge_heads(
        F.scaled_dot_product_attention(key, key, value, attn_mask=prior), block.self_attn
    )


def neighbourhood(grid: Grid, *, like: Tensor) -> Float[Tensor, "T T"]:
    """NACLIP's ω: a Gaussian of the distance between two patches, 1 on the diagonal.

    Args:
        grid: (rows, columns) of the patches.
        like: Gives device and dtype.
    """
    gaussians: list[Tensor] = []
    for n in grid:
        at = torch.arange(n, device=like.device, dtype=torch.float32)
        gaussians.append(torch.exp(-((at[:, None] - at) ** 2) / (2 * NEIGHBOURHOOD_STD**2)))
    down, across = gaussians
    product = down[:, None, :, None] * across[:, None]  # kron, which ONNX has not for every grid
    return product.flatten(2).flatten(0, 1).to(like.dtype)


TOKEN_KINDS: dict[str, Callable[[Block, Tensor, Grid], Tensor]] = {
    "clip": clip_block,
    "maskclip": maskclip_block,
    "sclip": sclip_block,
    "clearclip": clearclip_block,
    "naclip": naclip_block,
}
"""The kinds of patch tokens, by the name that `--token-kind` takes."""


def project_heads(block: Block, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the heads of query, key and value of LN1(x), each (B, heads, N, d)."""
    attention = block.self_attn
    normed = block.layer_norm1(tokens)
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    query, key, value = (_heads(project(normed), attention) for project in projections)
    return query, key, value


def _heads(flat: Tensor, attention: Any) -> Float[Tensor, "B heads N d"]:
    return torch.unflatten(flat, -1, (attention.num_heads, -1)).transpose(1, 2)


def merge_heads(mixed: Float[Tensor, "B heads N d"], attention: Any) -> Float[Tensor, "B N E"]:
    """Join heads and apply the output projection W_o."""
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def _attend(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool) -> Tensor:
    """Attend; in float32 where torch's bfloat16 gradient, on a CPU, takes three times as long."""
    if query.requires_grad and query.dtype == torch.bfloat16 and query.device.type == "cpu":
        with torch.autocast("cpu", enabled=False):
            mixed = F.scaled_dot_product_attention(
                query.float(), key.float(), value.float(), is_causal=is_causal
            )
        return mixed.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, is_causal=is_causal)


def _residuals(block: Block, tokens: Tensor, attended: Tensor) -> Tensor:
    tokens = tokens + attended
    return tokens + block.mlp(block.layer_norm2(tokens))
