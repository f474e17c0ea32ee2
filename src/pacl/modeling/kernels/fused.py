"""The compatibility for NVIDIA GPUs: Triton kernels between plain matrix products.

The same algorithm, letters and equations as tiled.py, always with the Gram matrix. Images come in
chunks whose scores fit a workspace. All large products are torch's, since none is faster; the
kernels do what lies between them, so that nothing of the workspace is read or written twice:

    R = E U'            torch             G = e e'            torch
    A and N from R      weights_kernel    Q = a' G A          quadratic_kernel
    the factors of u and of v in the gradient           coefficients_kernel
    dE from the factors, U and E                        torch

With bfloat16 inputs, R sums their exact products in float32 and stays float32: at a temperature of
0.01 the softmax makes a hundredfold of any rounding. All else is rounded to float16 for the
products, eight times finer than bfloat16, and scaled such that only what is negligible beside
other terms of its sum underflows. The gradient is then as good as its own type, bfloat16, allows.
To that end the weights leave the lengths out: with L the longest patch of the image, they are
A_t = exp(S_t / temperature - max), and a_t = A_t n_t / L, so v is tiled.py's up to a scale.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton import knobs

from pacl.modeling.kernels.forms import (
    inverse_norm,
    split_lengths,
    unit_vectors,
)
from pacl.modeling.kernels.fused_kernels import (
    coefficients_kernel,
    quadratic_kernel,
    weights_kernel,
)
from pacl.modeling.kernels.operators import define_operator

WORKSPACE = 2**25
"""Scores held at a time, in 10 bytes each with bfloat16 inputs and 16 with float32."""
HAS_WIDE_SUMS = torch.__version__ >= "2.8"
"""Whether a product of bfloat16 can be given in float32, as its sums are."""
IS_INTERPRETED = bool(knobs.runtime.interpret)
"""Triton's interpreter runs the kernels on a CPU, for tests; its bfloat16 products are wrong."""


def fused_compatibility(patch_embeds: Tensor, text_embeds: Tensor, temperature: Tensor) -> Tensor:
    """The compatibility of every image with every text, on an NVIDIA GPU.

    Args:
        patch_embeds: RAW patch embeddings (I, T, D), bfloat16, float16 or float32.
        text_embeds: Text embeddings (C, D), of any length, of those types. Unless both are
            bfloat16, and torch is 2.8 or newer, everything is computed in float32.
        temperature: One number, shape ().

    Returns:
        (I, C) float32 in [-1, 1]. It can be differentiated once, with respect to all three.

    Raises:
        ValueError: The tensors are not on an NVIDIA GPU, or are float64.
    """
    for name, value in (("patch_embeds", patch_embeds), ("text_embeds", text_embeds)):
        if not (value.is_cuda or IS_INTERPRETED):
            raise ValueError(f"{name} must be on an NVIDIA GPU for the fused implementation")
        if value.dtype == torch.float64:
            raise ValueError(f"{name} must not be float64 for the fused implementation")
    is_half = patch_embeds.dtype == text_embeds.dtype == torch.bfloat16
    if not (is_half and HAS_WIDE_SUMS):
        patch_embeds, text_embeds = patch_embeds.float(), text_embeds.float()
    return _operator(patch_embeds, text_embeds, temperature.float())[0]


class _Chunk(NamedTuple):
    """Some images, prepared: lengths, Gram matrices, R and the weights."""

    patches: Tensor  # (I, T, D)
    length: Tensor  # (I, T, 1) float32: n
    longest: Tensor  # (I, 1, 1) float32: L
    share: Tensor  # (I, T, 1) float32: n / L, 0 for a zero patch
    gram: Tensor  # (I, T, T): cosines, times n / L of the column's patch
    dots: Tensor  # (I, T, C) float32
    weights: Tensor  # (I, T, C)
    along: Tensor  # (I, C) float32


def launch_options(n_patches: int, kind: torch.dtype) -> dict[str, Any]:
    """What every kernel is compiled for, whether or not it makes use of it.

    The largest blocks that spill no register, see tests/ahead_of_time.py.
    """
    block_t = 32 if kind == torch.float32 else 64
    return {
        "BLOCK_T": max(16, min(block_t, triton.next_power_of_2(n_patches))),
        "BLOCK_C": 64,
        "BLOCK_K": 32,
        "IS_INTERPRETED": IS_INTERPRETED,
        "num_warps": 8,
        "enable_fp_fusion": True,
    }


def _prepare(
    patches: Tensor, text_embeds: Tensor, text_scale: Tensor, temperature: Tensor
) -> _Chunk:
    n_images, n_patches, _ = patches.shape
    n_texts = len(text_embeds)
    kind = _kind(patches)
    _, length, is_zero = split_lengths(patches.float())
    longest = length.amax(dim=1, keepdim=True)
    share = (length / longest).masked_fill(is_zero, 0)
    gram = _product(patches, patches.mT).div_(length * longest).to(kind)
    dots = _product(patches.flatten(0, 1), text_embeds.T).unflatten(0, (n_images, n_patches))
    weights = torch.empty_like(dots, dtype=kind)
    along = dots.new_empty(n_images, n_texts)
    options = launch_options(n_patches, kind)
    weights_kernel[(n_images, triton.cdiv(n_texts, options["BLOCK_C"]))](
        dots,
        length.reciprocal(),
        share,
        text_scale,
        temperature,
        weights,
        along,
        n_patches,
        n_texts,
        **options,
    )
    return _Chunk(patches, length, longest, share, gram, dots, weights, along)


def _kind(embeds: Tensor) -> torch.dtype:
    """The type of what is rounded for the products."""
    return torch.float32 if embeds.dtype == torch.float32 else torch.float16


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Sum in float32, and give float32, whatever type both have."""
    if a.dtype == torch.float32:
        return a @ b
    if a.is_cuda:
        product = torch.mm if a.ndim == 2 else torch.bmm
        return product(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def _chunks(patch_embeds: Tensor, n_texts: int) -> Iterator[slice]:
    """Slices of images whose scores, patches and Gram matrices each fit the workspace."""
    n_images, n_patches, width = patch_embeds.shape
    size = max(1, WORKSPACE // (n_patches * max(n_texts, width, n_patches)))
    for start in range(0, n_images if n_texts else 0, size):
        yield slice(start, start + size)


def _forward(
    patch_embeds: Tensor, text_embeds: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor]:
    """The compatibility, and for the backward 1 / sqrt(Q), or 0 where Q is; both (I, C)."""
    n_texts, n_patches = len(text_embeds), patch_embeds.shape[1]
    text_scale = inverse_norm(text_embeds.float())
    compatibility = text_scale.new_empty(len(patch_embeds), n_texts)
    inverse = torch.empty_like(compatibility)
    options = launch_options(n_patches, _kind(patch_embeds))
    for images in _chunks(patch_embeds, n_texts):
        chunk = _prepare(patch_embeds[images].contiguous(), text_embeds, text_scale, temperature)
        quadratic_kernel[(len(chunk.patches), triton.cdiv(n_texts, options["BLOCK_C"]))](
            chunk.share,
            chunk.gram,
            chunk.weights,
            chunk.along,
            compatibility[images],
            inverse[images],
            n_patches,
            n_texts,
            **options,
        )
    return compatibility, inverse


def _backward(
    gradient: Tensor,
    patch_embeds: Tensor,
    text_embeds: Tensor,
    temperature: Tensor,
    compatibility: Tensor,
    inverse: Tensor,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of patches, texts and temperature; an empty tensor for one that is not needed."""
    unit_texts = unit_vectors(text_embeds.float())
    text_scale = inverse_norm(text_embeds.float())
    d_patches = torch.zeros_like(patch_embeds) if needed[0] else patch_embeds.new_empty(0)
    d_unit_texts = torch.zeros_like(unit_texts) if needed[1] else unit_texts.new_empty(0)
    d_temperature = torch.zeros_like(temperature)
    factors = unit_texts.to(_kind(text_embeds))
    for images in _chunks(patch_embeds, len(text_embeds)):
        chunk = _prepare(patch_embeds[images].contiguous(), text_embeds, text_scale, temperature)
        outward = gradient[images] * inverse[images]
        inward = outward * compatibility[images] * inverse[images]
        terms = _launch_coefficients(chunk, text_scale, temperature, outward, inward)
        d_temperature -= (terms.of_temperature.sum(dim=0) * terms.out_scale).sum()
        if needed[0]:
            d_patches[images] = _d_patches(chunk, terms, factors)
        if needed[1]:
            d_unit_texts += _d_unit_texts(chunk, terms)
    d_temperature /= temperature.square()
    if needed[1]:
        along = (d_unit_texts * unit_texts).sum(dim=-1, keepdim=True)
        d_texts = (d_unit_texts - unit_texts * along) * text_scale
    else:
        d_texts = d_unit_texts
    return d_patches, d_texts.to(text_embeds.dtype), d_temperature


class _Terms(NamedTuple):
    """The terms of the gradients, each but for a scale of its image."""

    coefficients: Tensor  # (I, T, C), times out_scale over the longest patch
    pull: Tensor  # (I, T, C), times in_scale
    of_length: Tensor  # (blocks of texts, I, T, 1) float32, times out_scale
    of_temperature: Tensor  # the same
    out_scale: Tensor  # (I, 1, 1) float32
    in_scale: Tensor  # (I, 1, 1) float32


def _launch_coefficients(
    chunk: _Chunk, text_scale: Tensor, temperature: Tensor, outward: Tensor, inward: Tensor
) -> _Terms:
    n_images, n_patches, n_texts = chunk.dots.shape
    options = launch_options(n_patches, chunk.weights.dtype)
    n_blocks = triton.cdiv(n_texts, options["BLOCK_C"])
    out_scale, in_scale = _largest(outward), _largest(inward)
    of_length = chunk.length.new_empty(n_blocks, *chunk.length.shape)
    terms = _Terms(
        torch.empty_like(chunk.weights),
        torch.empty_like(chunk.weights),
        of_length,
        torch.empty_like(of_length),
        out_scale[:, :, None],
        in_scale[:, :, None],
    )
    coefficients_kernel[(n_images, n_blocks, triton.cdiv(n_patches, options["BLOCK_T"]))](
        chunk.dots,
        chunk.length.reciprocal(),
        chunk.share,
        text_scale,
        temperature,
        chunk.gram,
        chunk.weights,
        outward / out_scale,
        inward / in_scale,
        in_scale / out_scale,
        *terms[:4],
        n_images * n_patches,
        n_patches,
        n_texts,
        **options,
    )
    return terms


def _largest(factors: Tensor) -> Tensor:
    """The largest absolute value of each row, (I, 1); 1 where all are 0."""
    largest = factors.abs().amax(dim=1, keepdim=True)
    return largest.masked_fill_(largest == 0, 1)


def _d_patches(chunk: _Chunk, terms: _Terms, factors: Tensor) -> Tensor:
    """The gradient dE (I, T, D): what turns the patches, and along each what lengthens it."""
    patches, length = chunk.patches, chunk.length
    gradient = _product(terms.coefficients.flatten(0, 1), factors).view(patches.shape)
    gradient *= terms.out_scale / chunk.longest
    pull = _product(terms.pull, chunk.weights.mT) * (terms.in_scale / chunk.longest.square())
    gradient -= _product(pull.to(patches.dtype), patches)
    along = (gradient * patches).sum(dim=-1, keepdim=True)
    along -= terms.of_length.sum(dim=0) * terms.out_scale
    return gradient.addcmul_(patches.float(), along / length.square(), value=-1)


def _d_unit_texts(chunk: _Chunk, terms: _Terms) -> Tensor:
    """This chunk's share (C, D) in the gradient of the unit texts."""
    scale = terms.out_scale.amax()
    patches = chunk.patches * (terms.out_scale / scale / chunk.longest)
    coefficients = terms.coefficients.flatten(0, 1)
    return _product(coefficients.T, patches.flatten(0, 1).to(coefficients.dtype)).mul_(scale)


_operator = define_operator("fused_compatibility", _forward, _backward)
