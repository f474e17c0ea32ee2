"""The compatibility tile by tile: nothing of size (images, patches, texts) is ever held.

The forward keeps two numbers of every pair; the backward computes the scores of a tile again. It
is plain torch, so it runs on every device, in float32 at least.

Everything is written for unit patches e_t = E_t / n_t with n_t = |E_t|, whose lengths enter as a
bias of the softmax (see forms.py). The softmax needs no sum, since the compatibility has no scale:

    a_t = exp(S_t / temperature + log n_t - max)       S_t = e_t . u
    v   = sum_t a_t e_t                                N = sum_t a_t S_t = v . u,   Q = v . v
    compatibility = N / sqrt(Q)

and backwards, with g the gradient of the compatibility and sums over the texts:

    dZ_t = g a_t (S_t / sqrt(Q) - compatibility / Q (e_t . v))    for the argument of the exp
    de_t = sum (g a_t / sqrt(Q) + dZ_t / temperature) u - sum (g a_t compatibility / Q) v
    dE_t = (de_t - e_t (e_t . de_t - sum dZ_t)) / n_t

There are two ways to e_t . v and to Q: from the cosines G = e e' of the patches (T, T), without
ever forming v, or from v itself. The first is the cheaper one where T is small against D. Tensors
of a tile lie in the order (I, T, C); the letters are those of compatibility.py.
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

CPU_TILE = 2**18
"""Numbers in one buffer of a tile, for each thread: 1 MiB stays close to the core."""
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
    with torch.autocast(patch_embeds.device.type, enabled=False):
        for images, all_texts in _tiles(patch_embeds, n_texts):
            tile = _ImageTile(patch_embeds[images], temperature, has_gram=has_gram)
            for texts in all_texts:
                similarity = tile.similarity(unit_texts[texts])
                weights = tile.weights(similarity)
                along_text = similarity.mul_(weights).sum(dim=1)
                # v.v >= (v.u)^2: rounding may break it where the pooled patches nearly cancel.
                squared_norm = tile.squared_norm(weights).maximum(along_text.square())
                inverse = squared_norm.rsqrt().masked_fill_(squared_norm == 0, 0)
                inverse_norm[images, texts] = inverse
                compatibility[images, texts] = along_text.mul_(inverse)
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
    d_patches, d_texts, d_temperature = _new_gradients(
        patch_embeds, unit_texts, temperature, needed
    )
    with torch.autocast(patch_embeds.device.type, enabled=False):
        outward = gradient * inverse_norm  # g / sqrt(Q)
        inward = outward * compatibility * inverse_norm  # g compatibility / Q
        for images, all_texts in _tiles(patch_embeds, n_texts):
            tile = _ImageTile(patch_embeds[images], temperature, has_gram=has_gram)
            d_tile = _TileGradient(tile)
            for texts in all_texts:
                push, pull = outward[images, None, texts], inward[images, None, texts]
                similarity = tile.similarity(unit_texts[texts])
                weights = tile.weights(similarity)
                pooled = tile.pool(weights)
                dots = tile.dots(weights, pooled)
                d_logits = (similarity * push).addcmul_(dots, pull, value=-1).mul_(weights)
                if of_temperature:
                    d_temperature -= similarity.mul_(d_logits).sum()
                if of_patches:
                    d_tile.add_lengths(d_logits)
                    d_tile.add_pooling(weights, torch.mul(weights, pull, out=dots), pooled)
                d_similarity = d_logits.div_(temperature).addcmul_(weights, push)
                if of_patches:
                    d_tile.add_similarity(d_similarity, unit_texts[texts])
                if of_texts:
                    d_texts[texts].addmm_(d_similarity.flatten(0, 1).T, tile.unit.flatten(0, 1))
            if of_patches:
                d_tile.write_patches(d_patches[images])
        d_temperature /= temperature.square()
    return d_patches, d_texts, d_temperature


class _ImageTile:
    """Some images, taken apart into the directions and the lengths of their patches."""

    def __init__(self, patch_embeds: Tensor, temperature: Tensor, *, has_gram: bool) -> None:
        self.unit, self.length, self._is_zero = split_lengths(patch_embeds.to(temperature.dtype))
        self.gram = self.unit @ self.unit.mT if has_gram else None
        self._bias = self.length.log()
        self._temperature = temperature

    def similarity(self, unit_texts: Tensor) -> Tensor:
        """The cosines S (I, T, C)."""
        return (self.unit.flatten(0, 1) @ unit_texts.T).unflatten(0, self.unit.shape[:2])

    def weights(self, similarity: Tensor) -> Tensor:
        """The weights a (I, T, C), at most 1 but for zero patches."""
        logits = (similarity / self._temperature).add_(self._bias)
        logits.sub_(largest_logit(logits, self._is_zero))
        return logits.clamp_(max=max_excess(logits.dtype)).exp_()

    def squared_norm(self, weights: Tensor) -> Tensor:
        """The squares Q = v . v (I, C)."""
        pooled = self.pool(weights)
        if pooled is None:
            return self.dots(weights, pooled).mul_(weights).sum(dim=1)
        return pooled.square_().sum(dim=2)

    def pool(self, weights: Tensor) -> Tensor | None:
        """The vectors v (I, C, D), or None where the Gram matrix stands in for it."""
        return weights.mT @ self.unit if self.gram is None else None

    def dots(self, weights: Tensor, pooled: Tensor | None) -> Tensor:
        """The products e_t . v (I, T, C), given the answer of pool()."""
        if pooled is None:
            assert self.gram is not None
            return self.gram @ weights
        return self.unit @ pooled.mT


class _TileGradient:
    """Sums over the texts that make up the gradient of an _ImageTile."""

    def __init__(self, tile: _ImageTile) -> None:
        self._tile = tile
        self._unit = torch.zeros_like(tile.unit)
        self._length = torch.zeros_like(tile.length)
        self._gram = None if tile.gram is None else torch.zeros_like(tile.gram)

    def add_lengths(self, d_logits: Tensor) -> None:
        self._length += d_logits.sum(dim=2, keepdim=True)

    def add_pooling(self, weights: Tensor, pull: Tensor, pooled: Tensor | None) -> None:
        """Subtract ``pull`` (I, T, C) times v; with a Gram matrix, v waits until the end."""
        if pooled is None:
            assert self._gram is not None
            self._gram.baddbmm_(pull, weights.mT, alpha=-1)
        else:
            self._unit.baddbmm_(pull, pooled, alpha=-1)

    def add_similarity(self, d_similarity: Tensor, unit_texts: Tensor) -> None:
        self._unit.flatten(0, 1).addmm_(d_similarity.flatten(0, 1), unit_texts)

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
    size = CPU_TILE * torch.get_num_threads() if is_cpu else GPU_TILE
    text_step = max(1, min(n_texts, MAX_TEXTS, size // n_patches))
    largest = max(n_patches * text_step, n_patches * width, width * text_step)
    image_step = max(1, size // largest)
    texts = [slice(start, start + text_step) for start in range(0, n_texts, text_step)]
    for start in range(0, n_images, image_step):
        yield slice(start, start + image_step), texts


def _new_gradients(
    patch_embeds: Tensor, unit_texts: Tensor, temperature: Tensor, needed: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for the gradients; those that are sums over tiles start at zero."""
    of_patches, of_texts, _ = needed
    return (
        torch.empty_like(patch_embeds) if of_patches else patch_embeds.new_empty(0),
        torch.zeros_like(unit_texts) if of_texts else unit_texts.new_empty(0),
        torch.zeros_like(temperature),
    )


_operator = define_operator("tiled_compatibility", _forward, _backward)
