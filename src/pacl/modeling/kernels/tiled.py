"""The compatibility tile by tile: nothing of size (images, patches, texts) is ever held.

The forward keeps two numbers of every pair; the backward computes the scores of a tile again. It
is plain torch, so it runs on every device, in float32 at least.

Everything is written for unit patches e_t = E_t / n_t with n_t = |E_t|, whose lengths enter as a
bias of the softmax (see forms.py). The compatibility has no scale, and so the softmax any:

    a   = softmax_t(S_t / temperature + log n_t)       S_t = e_t . u
    v   = sum_t a_t e_t                                N = sum_t a_t S_t = v . u,   Q = v . v
    compatibility = N / sqrt(Q)

and backwards, with g the gradient of the compatibility and sums over the texts:

    y    = g / sqrt(Q) u - g compatibility / Q v       the gradient of v
    dZ_t = a_t (e_t . y)                               that of the softmax's argument
    de_t = sum a_t y + sum dZ_t / temperature u
    dE_t = (de_t - e_t (e_t . de_t - sum dZ_t)) / n_t
    du   = sum_it a_t g / sqrt(Q) e_t + dZ_t / temperature e_t

There are two ways to e_t . v and to Q: from the cosines G = e e' of the patches (T, T), without
ever forming v, or from v itself. The first is the cheaper one where T is small against D. Tensors
of a tile lie in the order (I, T, C); the letters are those of compatibility.py. Most of the time
must go to the products, so what is done with each number of such a tensor is kept to a few passes.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from pacl.modeling.kernels.forms import (
    computing_dtype,
    is_gram_cheaper,
    largest_logit,
    max_excess,
    split_lengths,
    unit_vectors,
)
from pacl.modeling.kernels.operators import define_operator
from pacl.runtime.threads import map_on_threads

CPU_TILE = 2**18
"""Numbers in one buffer of a tile, which one thread computes: 1 MiB stays close to the core."""
GPU_TILE = 2**25
"""The same on an accelerator: 128 MiB, enough work for every launch."""
MAX_TEXTS = 2**9


def tiled_compatibility(patch_embeds: Tensor, text_embeds: Tensor, temperature: Tensor) -> Tensor:
    """The compatibility of every image with every text, in tiles over both.

    Args:
        patch_embeds: RAW patch embeddings (I, T, D), of any floating type.
        text_embeds: Text embeddings (C, D), of any length and floating type.
        temperature: One number, shape ().

    Returns:
        (I, C) in [-1, 1], float32 or float64. It can be differentiated once, with respect to all.

    The work is done by operators that torch.compile does not look into: traced, the loop over the
    tiles would be unrolled.
    """
    dtype = computing_dtype(patch_embeds, text_embeds)
    unit_texts = unit_vectors(text_embeds.to(dtype))
    return _operator(patch_embeds, unit_texts, temperature.to(dtype))[0]


def _forward(
    patch_embeds: Tensor, unit_texts: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor]:
    """The compatibility, and for the backward 1 / sqrt(Q), or 0 where Q is; both (I, C)."""
    n_texts = len(unit_texts)
    has_gram = is_gram_cheaper(*patch_embeds.shape[1:], n_texts=n_texts)
    compatibility = unit_texts.new_empty(len(patch_embeds), n_texts)
    inverse_norm = torch.empty_like(compatibility)

    def score(tile_of: tuple[slice, list[slice]]) -> None:
        images, all_texts = tile_of
        tile = _ImageTile(patch_embeds[images], temperature, has_gram=has_gram)
        for texts in all_texts:
            along_text, squared_norm = tile.pool_along(unit_texts[texts])
            # v.v >= (v.u)^2: rounding may break it where the pooled patches nearly cancel.
            squared_norm = squared_norm.maximum(along_text.square())
            inverse = squared_norm.rsqrt().masked_fill_(squared_norm == 0, 0)
            inverse_norm[images, texts] = inverse
            compatibility[images, texts] = along_text.mul_(inverse)

    with torch.autocast(patch_embeds.device.type, enabled=False):
        for _ in map_on_threads(score, _tiles(patch_embeds, n_texts), device=patch_embeds.device):
            pass
    return compatibility, inverse_norm


def _backward(
    gradient: Tensor,
    patch_embeds: Tensor,
    unit_texts: Tensor,
    temperature: Tensor,
    compatibility: Tensor,
    inverse_norm: Tensor,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of patches, texts and temperature; an empty tensor for one that is not needed."""
    n_texts = len(unit_texts)
    has_gram = is_gram_cheaper(*patch_embeds.shape[1:], n_texts=n_texts, is_backward=True)
    of_patches, of_texts, of_temperature = needed
    d_patches = torch.empty_like(patch_embeds) if of_patches else patch_embeds.new_empty(0)
    outward = gradient * inverse_norm  # g / sqrt(Q)
    inward = outward * compatibility * inverse_norm  # g compatibility / Q

    def differentiate(tile_of: tuple[slice, list[slice]]) -> tuple[Tensor, Tensor]:
        """Write the gradient of some patches; return what they add to the other two."""
        images, all_texts = tile_of
        tile = _ImageTile(patch_embeds[images], temperature, has_gram=has_gram)
        d_tile = _TileGradient(tile)
        to_texts = torch.zeros_like(unit_texts) if of_texts else unit_texts.new_empty(0)
        to_temperature = torch.zeros_like(temperature)
        for texts in all_texts:
            push, pull = outward[images, texts], inward[images, texts]
            weights, d_logits = d_tile.add(unit_texts[texts], push, pull)
            if not (of_texts or of_temperature):
                continue
            turned = d_logits.flatten(0, 1).T @ tile.unit.flatten(0, 1)
            to_temperature -= torch.linalg.vecdot(turned, unit_texts[texts]).sum()
            if of_texts:
                pushed = weights.mul_(push[:, None]).flatten(0, 1)
                to_texts[texts] = turned.div_(temperature).addmm_(pushed.T, tile.unit.flatten(0, 1))
        if of_patches:
            d_tile.write_patches(d_patches[images])
        return to_texts, to_temperature

    d_texts = torch.zeros_like(unit_texts) if of_texts else unit_texts.new_empty(0)
    d_temperature = torch.zeros_like(temperature)
    tiles = _tiles(patch_embeds, n_texts)
    with torch.autocast(patch_embeds.device.type, enabled=False):
        # Added in the order of the tiles: equal to the bit on any number of threads.
        for parts in map_on_threads(differentiate, tiles, device=patch_embeds.device):
            d_texts += parts[0]
            d_temperature += parts[1]
    return d_patches, d_texts, d_temperature / temperature.square()


class _ImageTile:
    """Some images, taken apart into the directions and the lengths of their patches."""

    def __init__(self, patch_embeds: Tensor, temperature: Tensor, *, has_gram: bool) -> None:
        self.unit, self.length, self._is_zero = split_lengths(patch_embeds.to(temperature.dtype))
        self.gram = self.unit @ self.unit.mT if has_gram else None
        self.temperature = temperature
        self._bias = self.length.log()
        # On an accelerator to ask would be to wait.
        is_cpu = patch_embeds.device.type == "cpu"
        self._may_have_zeros = not is_cpu or bool(self._is_zero.any())

    def similarity(self, unit_texts: Tensor) -> Tensor:
        """The cosines S (I, T, C)."""
        return (self.unit.flatten(0, 1) @ unit_texts.T).unflatten(0, self.unit.shape[:2])

    def weights(self, scaled: Tensor) -> Tensor:
        """The weights a (I, T, C), but for a factor per pair; at most 1 but for zero patches.

        Args:
            scaled: S / temperature, which is overwritten.
        """
        logits = scaled.add_(self._bias)
        if not self._may_have_zeros:
            return torch.softmax(logits, dim=1, out=logits)
        logits.sub_(largest_logit(logits, self._is_zero))
        return logits.clamp_(max=max_excess(logits.dtype)).exp_()

    def pool(self, unit_texts: Tensor) -> tuple[Tensor, Tensor]:
        """The weights a (I, T, C) and the pooled vectors v (I, C, D)."""
        weights = self.weights(self.similarity(unit_texts / self.temperature))
        return weights, weights.mT @ self.unit

    def pool_along(self, unit_texts: Tensor) -> tuple[Tensor, Tensor]:
        """N = v . u and Q = v . v, both (I, C)."""
        if self.gram is None:
            pooled = self.pool(unit_texts)[1]
            squared_norm = torch.linalg.vector_norm(pooled, dim=2).square_()
            return pooled.mul_(unit_texts).sum(dim=2), squared_norm
        similarity = self.similarity(unit_texts)
        weights = self.weights(similarity / self.temperature)
        along_text = similarity.mul_(weights).sum(dim=1)
        return along_text, (self.gram @ weights).mul_(weights).sum(dim=1)


class _TileGradient:
    """Sums over the texts that make up the gradient of an _ImageTile."""

    def __init__(self, tile: _ImageTile) -> None:
        self._tile = tile
        self._unit = torch.zeros_like(tile.unit)
        self._length = torch.zeros_like(tile.length)
        self._gram = None if tile.gram is None else torch.zeros_like(tile.gram)

    def add(self, unit_texts: Tensor, push: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Add some texts.

        Args:
            unit_texts: Their embeddings (C, D).
            push: Of shape (I, C), g / sqrt(Q).
            pull: Of shape (I, C), g compatibility / Q.

        Returns:
            The weights a and the gradient dZ of the softmax's argument, both (I, T, C).
        """
        tile = self._tile
        if tile.gram is None:
            weights, pooled = tile.pool(unit_texts)
            of_pooled = pooled.mul_(pull[..., None]).neg_().addcmul_(push[..., None], unit_texts)
            self._unit.baddbmm_(weights, of_pooled)
            turning = d_logits = (tile.unit @ of_pooled.mT).mul_(weights)
        else:
            assert self._gram is not None
            push, pull = push[:, None], pull[:, None]
            similarity = tile.similarity(unit_texts)
            weights = tile.weights(similarity / tile.temperature)
            d_logits = similarity.mul_(push)
            d_logits.addcmul_(tile.gram @ weights, pull, value=-1).mul_(weights)
            self._gram.baddbmm_(weights * pull, weights.mT, alpha=-1)  # v waits until the end
            turning = torch.addcmul(d_logits, weights, push * tile.temperature)
        self._length += d_logits.sum(dim=2, keepdim=True)
        self._unit.flatten(0, 1).addmm_(turning.flatten(0, 1), unit_texts / tile.temperature)
        return weights, d_logits

    def write_patches(self, d_patches: Tensor) -> None:
        """The gradient dE (I, T, D): what turns the patches, and along each what lengthens it."""
        unit, length = self._tile.unit, self._tile.length
        if self._gram is not None:
            self._unit.baddbmm_(self._gram, unit)
        along = torch.linalg.vecdot(unit, self._unit).unsqueeze(-1)
        torch.div(self._unit.addcmul_(unit, along - self._length, value=-1), length, out=d_patches)


def fits_one_tile(patch_embeds: Tensor, n_texts: int) -> bool:
    """Whether there is nothing to be divided."""
    tiles = list(islice(_tiles(patch_embeds, n_texts), 2))
    return len(tiles) < 2 and all(len(texts) < 2 for _, texts in tiles)


def _tiles(patch_embeds: Tensor, n_texts: int) -> Iterator[tuple[slice, list[slice]]]:
    """Slices of images, each with the slices of all texts."""
    n_images, n_patches, width = patch_embeds.shape
    is_cpu = patch_embeds.device.type == "cpu"
    size = CPU_TILE if is_cpu else GPU_TILE
    text_step = max(1, min(n_texts, MAX_TEXTS, size // n_patches))
    largest = max(n_patches * text_step, n_patches * width, width * text_step)
    image_step = max(1, size // largest)
    texts = [slice(start, start + text_step) for start in range(0, n_texts, text_step)]
    for start in range(0, n_images, image_step):
        yield slice(start, start + image_step), texts


_operator = define_operator("tiled_compatibility", _forward, _backward)
