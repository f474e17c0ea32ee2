"""The Triton programs of fused.py, which says how they go together.

Rows are the patches of all images of a chunk, I T of them. Offsets are 64 bits wide: a chunk with
many texts passes 2^31 numbers. Everything is computed in float32, whatever is read and written.

@no_type_check keeps a type checker's import hook off functions that are no Python for Triton.
"""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def weights_kernel(
    dots_ptr,  # (I T, C) float32: R, raw patches with raw texts
    inverse_length_ptr,  # (I T) float32: 1 / n
    share_ptr,  # (I T) float32: n / L, 0 for a zero patch
    text_scale_ptr,  # (C) float32: 1 / |text|
    temperature_ptr,  # one float32
    weights_ptr,  # out (I T, C): A
    along_ptr,  # out (I, C) float32: N
    n_patches,
    n_texts,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One image and a block of texts: the softmax over the patches, without its sum."""
    image = tl.program_id(0).to(tl.int64)
    texts = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_text = texts < n_texts
    text_scale = tl.load(text_scale_ptr + texts, mask=is_text, other=0.0)[None, :]
    sharpness = 1.0 / tl.load(temperature_ptr)
    largest = tl.full((BLOCK_C,), float("-inf"), tl.float32)
    for start in range(0, n_patches, BLOCK_T):
        patches = start + tl.arange(0, BLOCK_T)
        is_patch = patches < n_patches
        rows = image * n_patches + patches
        places = rows[:, None] * n_texts + texts[None, :]
        dots = tl.load(dots_ptr + places, mask=is_patch[:, None] & is_text[None, :], other=0.0)
        inverse_length = tl.load(inverse_length_ptr + rows, mask=is_patch, other=0.0)[:, None]
        logits = dots * inverse_length * text_scale * sharpness
        # Zero patches have no part in v, which might underflow where they had the largest.
        has_part = tl.load(share_ptr + rows, mask=is_patch, other=0.0)[:, None] > 0.0
        logits = tl.where(has_part, logits, float("-inf"))
        largest = tl.maximum(largest, tl.max(logits, axis=0))
    largest = tl.where(largest == float("-inf"), 0.0, largest)
    along = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(0, n_patches, BLOCK_T):
        patches = start + tl.arange(0, BLOCK_T)
        is_patch = patches < n_patches
        rows = image * n_patches + patches
        places = rows[:, None] * n_texts + texts[None, :]
        is_place = is_patch[:, None] & is_text[None, :]
        dots = tl.load(dots_ptr + places, mask=is_place, other=0.0)
        inverse_length = tl.load(inverse_length_ptr + rows, mask=is_patch, other=0.0)[:, None]
        share = tl.load(share_ptr + rows, mask=is_patch, other=0.0)[:, None]
        similarity = dots * inverse_length * text_scale
        # Only a zero patch can be above 0, and float16 ends at exp(11).
        weights = tl.exp(tl.minimum(similarity * sharpness - largest[None, :], 10.0))
        weights = weights.to(weights_ptr.dtype.element_ty)
        tl.store(weights_ptr + places, weights, mask=is_place)
        along += tl.sum(weights.to(tl.float32) * share * similarity, axis=0)
    tl.store(along_ptr + image * n_texts + texts, along, mask=is_text)


@triton.jit
@no_type_check
def pooled_dots(
    gram_ptr,  # (I, T, T)
    weights_ptr,  # (I T, C)
    image,
    patches,
    texts,
    n_patches,
    n_texts,
    IS_INTERPRETED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """e_t . v = (G A)_t for a block of patches and texts, in float32."""
    total = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    gram_rows = (image * n_patches + patches[:, None]) * n_patches
    for start in range(0, n_patches, BLOCK_K):
        others = start + tl.arange(0, BLOCK_K)
        is_other = others < n_patches
        is_weight = is_other[:, None] & (texts[None, :] < n_texts)
        is_gram = (patches[:, None] < n_patches) & is_other[None, :]
        weight_places = (image * n_patches + others[:, None]) * n_texts + texts[None, :]
        weights = tl.load(weights_ptr + weight_places, mask=is_weight, other=0.0)
        gram = tl.load(gram_ptr + gram_rows + others[None, :], mask=is_gram, other=0.0)
        if IS_INTERPRETED:
            weights, gram = weights.to(tl.float32), gram.to(tl.float32)
        total = tl.dot(gram, weights, total, input_precision="tf32x3")
    return total


@triton.jit
@no_type_check
def quadratic_kernel(
    share_ptr,
    gram_ptr,
    weights_ptr,
    along_ptr,  # (I, C) float32: N
    compatibility_ptr,  # out (I, C) float32
    inverse_norm_ptr,  # out (I, C) float32: 1 / sqrt(Q), or 0 where Q is
    n_patches,
    n_texts,
    IS_INTERPRETED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One image and a block of texts: Q, and with it the compatibility."""
    image = tl.program_id(0).to(tl.int64)
    texts = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_text = texts < n_texts
    squared_norm = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(0, n_patches, BLOCK_T):
        patches = start + tl.arange(0, BLOCK_T)
        dots = pooled_dots(
            gram_ptr,
            weights_ptr,
            image,
            patches,
            texts,
            n_patches,
            n_texts,
            IS_INTERPRETED,
            BLOCK_T,
            BLOCK_C,
            BLOCK_K,
        )
        places = (image * n_patches + patches[:, None]) * n_texts + texts[None, :]
        is_place = (patches[:, None] < n_patches) & is_text[None, :]
        weights = tl.load(weights_ptr + places, mask=is_place, other=0.0).to(tl.float32)
        share = tl.load(
            share_ptr + image * n_patches + patches, mask=patches < n_patches, other=0.0
        )
        squared_norm += tl.sum(weights * share[:, None] * dots, axis=0)
    pairs = image * n_texts + texts
    along = tl.load(along_ptr + pairs, mask=is_text, other=0.0)
    # v.v >= (v.u)^2: rounding may break it where the pooled patches nearly cancel.
    squared_norm = tl.maximum(squared_norm, along * along)
    is_zero = squared_norm == 0.0
    inverse = tl.where(is_zero, 0.0, 1.0 / tl.sqrt(tl.where(is_zero, 1.0, squared_norm)))
    tl.store(inverse_norm_ptr + pairs, inverse, mask=is_text)
    tl.store(compatibility_ptr + pairs, along * inverse, mask=is_text)


@triton.jit
@no_type_check
def coefficients_kernel(
    dots_ptr,
    inverse_length_ptr,
    share_ptr,
    text_scale_ptr,
    temperature_ptr,
    gram_ptr,
    weights_ptr,
    outward_ptr,  # (I, C) float32: g / sqrt(Q), over its largest in the image
    inward_ptr,  # (I, C) float32: g compatibility / Q, over its largest in the image
    ratio_ptr,  # (I) float32: the second of those largest over the first
    coefficients_ptr,  # out (I T, C): of u in the gradient of the patch
    pull_ptr,  # out (I T, C): of -v in it
    of_length_ptr,  # out (blocks of texts, I T) float32: sums of dZ
    of_temperature_ptr,  # out (blocks of texts, I T) float32: sums of dZ S
    n_rows,
    n_patches,
    n_texts,
    IS_INTERPRETED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One image, a block of its patches and a block of texts."""
    image = tl.program_id(0).to(tl.int64)
    texts = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    patches = tl.program_id(2) * BLOCK_T + tl.arange(0, BLOCK_T)
    along_pooled = pooled_dots(
        gram_ptr,
        weights_ptr,
        image,
        patches,
        texts,
        n_patches,
        n_texts,
        IS_INTERPRETED,
        BLOCK_T,
        BLOCK_C,
        BLOCK_K,
    )
    is_text, is_patch = texts < n_texts, patches < n_patches
    rows = image * n_patches + patches
    places = rows[:, None] * n_texts + texts[None, :]
    is_place = is_patch[:, None] & is_text[None, :]
    inverse_length = tl.load(inverse_length_ptr + rows, mask=is_patch, other=0.0)[:, None]
    text_scale = tl.load(text_scale_ptr + texts, mask=is_text, other=0.0)[None, :]
    dots = tl.load(dots_ptr + places, mask=is_place, other=0.0)
    weights = tl.load(weights_ptr + places, mask=is_place, other=0.0).to(tl.float32)
    outward = tl.load(outward_ptr + image * n_texts + texts, mask=is_text, other=0.0)[None, :]
    inward = tl.load(inward_ptr + image * n_texts + texts, mask=is_text, other=0.0)[None, :]
    share = tl.load(share_ptr + rows, mask=is_patch, other=0.0)[:, None]
    similarity = dots * inverse_length * text_scale
    turn = similarity * outward - along_pooled * (inward * tl.load(ratio_ptr + image))
    d_logits = weights * share * turn
    coefficients = weights * (outward + turn / tl.load(temperature_ptr))
    tl.store(coefficients_ptr + places, coefficients, mask=is_place)
    tl.store(pull_ptr + places, weights * inward, mask=is_place)
    sums = tl.program_id(1).to(tl.int64) * n_rows + rows
    tl.store(of_length_ptr + sums, tl.sum(d_logits, axis=1), mask=is_patch)
    tl.store(of_temperature_ptr + sums, tl.sum(d_logits * similarity, axis=1), mask=is_patch)
