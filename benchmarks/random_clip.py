"""A full-size CLIP of random weights, and images and names to try it on; nothing is downloaded."""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.positions import interpolate_positions, patch_grid

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from checkpoints import randomise, write_clip


def build_clip(size: str = "vit-b-16") -> HfClip:
    """The same weights each time; biases and norms are away from 0 and 1."""
    with tempfile.TemporaryDirectory() as directory, torch.random.fork_rng():
        torch.manual_seed(0)
        write_clip(Path(directory), size=size, with_weights=False)
        encoder = HfClip.from_config(directory)
        randomise(encoder.clip)
    return encoder


def draw_images(n: int, size_px: int, *, seed: int, device: torch.device) -> Tensor:
    """Normalised images with large shapes and some noise."""
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.randn(n, 3, 8, 8, generator=generator)
    noise = torch.randn(n, 3, size_px, size_px, generator=generator)
    return (F.interpolate(shapes, (size_px, size_px), mode="bicubic") + 0.3 * noise).to(device)


@torch.inference_mode()
def draw_names(encoder: HfClip, n: int, *, layer: int = -1) -> Tensor:
    """Unit text embeddings that distinguish patches: what makes patches differ from the mean.

    Random directions would not do: all patches of a random CLIP are much alike, and one name would
    win everywhere.
    """
    images = draw_images(1, encoder.image_size_px, seed=10_000, device=encoder.device)
    tokens, _ = encoder.encode_patches(images, layer=layer)
    embeds = F.normalize(encoder.project_patches(tokens)[0], dim=-1)
    return F.normalize((embeds - embeds.mean(dim=0))[:n], dim=-1)


def library_tokens(
    encoder: HfClip, stride_px: int, layer: int = -1
) -> Callable[[Tensor], tuple[Tensor, tuple[int, int]]]:
    """transformers' own forward pass, at a patch stride; it runs all blocks, whatever the layer.

    The library knows the patch size as stride only, so a copy of its embedding layer gets the
    stride and the positions that pacl reads off for it; the rest runs untouched.
    """
    vision = copy.deepcopy(encoder.clip.vision_model)
    embeddings, patch_px = vision.embeddings, encoder.patch_size_px
    size_px = encoder.image_size_px
    grid = patch_grid(size_px, size_px, patch_px=patch_px, stride_px=stride_px)
    table = embeddings.position_embedding.weight.data
    patches = interpolate_positions(table[1:], grid, patch_px=patch_px, stride_px=stride_px)
    embeddings.position_embedding.weight.data = torch.cat([table[:1], patches])
    embeddings.position_ids = torch.arange(1 + len(patches), device=table.device)[None]
    embeddings.patch_embedding.stride = (stride_px, stride_px)

    def forward(images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        tokens = vision(images, output_hidden_states=True).hidden_states[layer][:, 1:]
        return vision.post_layernorm(tokens), grid

    return forward
