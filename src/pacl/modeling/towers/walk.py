"""The walk through CLIP's two towers, block by block.

Written against the modules of transformers' CLIP (the library itself is not imported here): its
own forward pass knows one image size, the last layer, the patch size as stride and plain
attention, and PACL wants the choice.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pacl.modeling.towers.merging import check_kind, run_merging, unmerge
from pacl.modeling.towers.positions import (
    embed_patches,
    interpolate_positions,
    stretch_positions,
)
from pacl.modeling.towers.token_kinds import TOKEN_KINDS, Grid, apply_block
from pacl.modeling.towers.whole_walks import WHOLE_WALKS


class PatchTower(nn.Module):
    """From the first block's input to patch tokens: the one walk through the vision tower's blocks.

    Args:
        vision: A transformers `CLIPVisionModel`; its modules are shared, not copied.
        kind: How the last block that runs mixes patches, a key of TOKEN_KINDS or WHOLE_WALKS.
        layer: The last block that runs: -1 the tower's last, -2 the one before, ...
        norm: Whether the tower's final LayerNorm is applied.
        merges: Whether patches that are alike are merged on the way, see `merging.py`.

    Raises:
        ValueError: Unknown kind, or no such layer.
        InputError: Patches cannot be merged for that kind.
    """

    def __init__(
        self, vision: Any, *, kind: str, layer: int, norm: bool = True, merges: bool = False
    ) -> None:
        super().__init__()
        n_layers = len(vision.encoder.layers)
        kinds = (*TOKEN_KINDS, *WHOLE_WALKS)
        if kind not in kinds:
            raise ValueError(f"kind must be one of {', '.join(kinds)}, got {kind!r}")
        if not -n_layers <= layer <= -1:
            raise ValueError(f"layer must lie in -{n_layers}..-1, got {layer}")
        if merges:
            check_kind(kind)
        self.kind, self.layer, self.merges = kind, layer, merges
        self.width: int = vision.config.hidden_size
        self.blocks = vision.encoder.layers[: n_layers + 1 + layer]
        self.norm = vision.post_layernorm if norm else nn.Identity()

    def forward(self, tokens: Float[Tensor, "B N E"], grid: Grid) -> Float[Tensor, "B T E"]:
        """Run the blocks; CLS comes first in `tokens` and is dropped from what is returned."""
        if self.kind in WHOLE_WALKS:
            return self.norm(WHOLE_WALKS[self.kind](list(self.blocks), tokens, grid))
        *earlier, last = self.blocks
        if self.merges:
            walk = [partial(apply_block, block) for block in earlier]
            tokens, places = run_merging(walk, tokens, n_prefix=1)
            merged = self.norm(TOKEN_KINDS[self.kind](last, tokens, grid)[:, 1:])
            return unmerge(merged, places)
        for block in earlier:
            tokens = apply_block(block, tokens)
        return self.norm(TOKEN_KINDS[self.kind](last, tokens, grid)[:, 1:])


def walk_to_cls(
    vision: Any,
    images: Float[Tensor, "B 3 H W"],
    *,
    keep_patches: float = 1.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B E"]:
    """Return the CLS token after the vision tower's final LayerNorm, before the projection.

    Args:
        vision: A transformers `CLIPVisionModel`.
        images: Normalised.
        keep_patches: Share of patches that are kept, see `drop_patches`.
        generator: Decides which.
    """
    tokens, _ = embed_images(vision, images, stride_px=vision.config.patch_size)
    if keep_patches < 1:
        tokens = drop_patches(tokens, keep_patches, generator=generator)
    *earlier, last = vision.encoder.layers
    for block in earlier:
        tokens = apply_block(block, tokens)
    return vision.post_layernorm(apply_block(last, tokens, n_queries=1)[:, 0])


def walk_to_end(
    text: Any, ids: Int[Tensor, "C L"], mask: Bool[Tensor, "C L"], *, is_causal: bool = True
) -> Float[Tensor, "C E"]:
    """Return each text's end token after the text tower's final LayerNorm, before the projection.

    Args:
        text: A transformers `CLIPTextModel`.
        ids: Token ids, padded on the right.
        mask: True for real tokens; the last of each row is the end token.
        is_causal: Whether a token attends to earlier ones only, so that padding never reaches the
            end token; if not, to all, padding included.

    The end token's place is read off the mask and not off the ids: CLIP configurations disagree
    about its id.
    """
    tokens = text.embeddings(input_ids=ids)
    for block in text.encoder.layers:
        tokens = apply_block(block, tokens, is_causal=is_causal)
    rows = torch.arange(ids.shape[0], device=ids.device)
    return text.final_layer_norm(tokens[rows, mask.sum(dim=1) - 1])


def embed_images(
    vision: Any, images: Float[Tensor, "B 3 H W"], *, stride_px: int, stretches: bool = False
) -> tuple[Float[Tensor, "B N E"], Grid]:
    """Return the input of the vision tower's first block: CLS and patches with positions.

    Args:
        vision: A transformers `CLIPVisionModel`.
        images: Normalised.
        stride_px: Distance of neighbouring patches.
        stretches: Whether positions are read by `stretch_positions`, at the patch size as stride.
    """
    embeddings = vision.embeddings
    kernel, positions = embeddings.patch_embedding.weight, embeddings.position_embedding.weight
    patches, grid = embed_patches(images.to(kernel.dtype), kernel, stride_px=stride_px)
    patch_px = kernel.shape[-1]
    if stretches and stride_px == patch_px:
        patches = patches + stretch_positions(positions[1:], grid)
    else:
        patches = patches + interpolate_positions(
            positions[1:], grid, patch_px=patch_px, stride_px=stride_px
        )
    cls = (embeddings.class_embedding + positions[0]).to(patches.dtype)
    return vision.pre_layrnorm(
        torch.cat([cls.expand(images.shape[0], 1, -1), patches], dim=1)
    ), grid


def drop_patches(
    tokens: Float[Tensor, "B N E"], keep: float, *, generator: torch.Generator | None = None
) -> Float[Tensor, "B K E"]:
    """Keep CLS and a random share of each image's patches (FLIP, arXiv 2212.00794, section 3).

    Args:
        tokens: CLS first.
        keep: Share of patches that stay, in (0, 1]; at least one does.
        generator: Decides which.
    """
    n_images, n_patches = len(tokens), tokens.shape[1] - 1
    device = generator.device if generator is not None else tokens.device
    order = torch.rand(n_images, n_patches, generator=generator, device=device).argsort(dim=1)
    kept = order[:, : max(1, round(keep * n_patches))].to(tokens.device) + 1
    kept = torch.cat([kept.new_zeros(n_images, 1), kept], dim=1)
    return tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))


@contextmanager
def onednn_products() -> Generator[None]:
    """Have oneDNN in place of MKL multiply float32, on CPUs where that keeps float32's accuracy.

    Torch's setting is named "bf16" and allows rounding, but oneDNN rounds only where the CPU has
    AMX: there nothing is set.
    """
    flags = cpu_flags()
    backend = getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9
    if backend is None or "avx512f" not in flags or "amx_bf16" in flags:
        yield
        return
    before = backend.fp32_precision
    backend.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.fp32_precision = before


@cache
def cpu_flags() -> frozenset[str]:
    """The CPU's abilities as Linux names them (avx512f, amx_bf16 ...); elsewhere none."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()
