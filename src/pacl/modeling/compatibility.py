"""The compatibility of images with texts, and the contrastive loss on it: the paper's equations.

Dimension letters, here and everywhere in the package:

    B  batch                     E  width of the frozen vision encoder
    I  images                    D  width of the joint space of patches and texts
    C  classes or captions       T  patches of one image (rows x columns, row-major)
    H, W  height and width in pixels

For image i and text j, with raw patch embeddings E_it and the unit text embedding u_j:

    R_itj = E_it . u_j                  S = R / |E_it|                the cosine of every patch
    A     = softmax_t(S / temperature)  v_ij = sum_t A_itj E_it       the patches pooled FOR text j
    compatibility_ij = v_ij . u_j / |v_ij|

The weights A belong to the pair: each image is pooled anew for every text. Inside this file tensors
over (image, patch, text) lie in the order (I, T, C), since R is then one plain matrix product.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pacl.modeling.kernels.forms import computing_dtype, inverse_norm, unit_vectors
from pacl.modeling.kernels.naive import naive_compatibility
from pacl.modeling.kernels.tiled import fits_one_tile, tiled_compatibility

Implementation = Literal["auto", "naive", "tiled", "fused"]

_HAS_TRITON = importlib.util.find_spec("triton") is not None
_log = logging.getLogger(__name__)


def patch_similarity(
    patch_embeds: Float[Tensor, "images patches width"],
    text_embeds: Float[Tensor, "texts width"],
) -> Float[Tensor, "images texts patches"]:
    """Cosine of every patch with every text: s_t of the paper's compatibility function.

    Args:
        patch_embeds: Patch embeddings (I, T, D), of any length.
        text_embeds: Text embeddings (C, D), of any length: they are divided by it here.

    Returns:
        (I, C, T) in [-1, 1], float32, or float64 where an input is. A zero vector has cosine 0
        with everything.

    Raises:
        ValueError: The shapes do not fit, or an argument is not floating point.
    """
    check_embeds(patch_embeds, text_embeds)
    with torch.autocast(patch_embeds.device.type, enabled=False):
        dtype = computing_dtype(patch_embeds, text_embeds)
        patches = patch_embeds.to(dtype)
        similarity = (patches @ unit_vectors(text_embeds.to(dtype)).T) * inverse_norm(patches)
        return similarity.clamp(-1, 1).mT


class NotFiniteError(ValueError):
    """An argument holds nan or infinity."""


def patch_compatibility(
    patch_embeds: Float[Tensor, "images patches width"],
    text_embeds: Float[Tensor, "texts width"],
    *,
    patch_temperature: float | Tensor = 1.0,
    implementation: Implementation = "auto",
) -> Float[Tensor, "images texts"]:
    """PACL's compatibility of every image with every text (the paper's compatibility function).

    Args:
        patch_embeds: RAW patch embeddings (I, T, D). Their lengths matter: a long patch weighs
            more in the pooled vector.
        text_embeds: Text embeddings (C, D), of any length: they are divided by it here.
        patch_temperature: Divides the cosines before the softmax over patches; a number above 0,
            or a tensor of shape (), which may be learned. The paper has none, that is 1.
        implementation: All give the same numbers. naive: plain tensor operations, which hold
            several tensors (I, T, C) for the backward; the only one with second derivatives.
            tiled: tile by tile, computed again in the backward. fused: the same in Triton, for
            NVIDIA GPUs, not yet measured on one and so never auto's choice. auto: naive where
            there would be a single tile, tiled else and under torch.compile.

    Returns:
        (I, C), a cosine in [-1, 1], float32, or float64 where an input is. A zero patch has
        cosine 0; an image whose pooled vector is zero has compatibility 0.

    Raises:
        ValueError: The shapes, types or devices do not fit, patch_temperature is not above 0, or
            the implementation does not run here.
        NotFiniteError: An argument holds nan or infinity; a ValueError too.

    The result is computed in float32 at least, also under autocast: cosines rounded to bfloat16
    cost the gradient two digits.
    """
    check_embeds(patch_embeds, text_embeds)
    check_temperature(patch_temperature)
    dtype = computing_dtype(patch_embeds, text_embeds)
    compute = _IMPLEMENTATIONS[_choose(implementation, patch_embeds, len(text_embeds))]
    temperature = torch.as_tensor(patch_temperature, dtype=dtype, device=patch_embeds.device)
    with torch.autocast(patch_embeds.device.type, enabled=False):
        compatibility = compute(patch_embeds, text_embeds, temperature)
    check_finite(compatibility, patch_embeds, text_embeds)
    return compatibility


def _choose(implementation: Implementation, patch_embeds: Tensor, n_texts: int) -> str:
    """Resolve "auto" by memory, and say once in the log what it is.

    What fits one tile needs no tiles, and naive, which does not compute the scores twice, is a
    little faster there (docs/log.md, on a CPU). The fused kernels have been checked in Triton's
    interpreter only, so they run where asked for.
    """
    if implementation not in _IMPLEMENTATIONS and implementation != "auto":
        names = ", ".join(["auto", *_IMPLEMENTATIONS])
        raise ValueError(f"implementation must be one of {names}, got {implementation!r}")
    if implementation != "auto":
        return implementation
    if torch.compiler.is_compiling():
        return "tiled"
    chosen = "naive" if fits_one_tile(patch_embeds, n_texts) else "tiled"
    _report(chosen, patch_embeds.device.type)
    return chosen


@cache
def _report(chosen: str, device_type: str) -> None:
    _log.info("compatibility on %s: the %s implementation", device_type, chosen)


def _fused_compatibility(patch_embeds: Tensor, text_embeds: Tensor, temperature: Tensor) -> Tensor:
    if not _HAS_TRITON:
        raise ValueError('implementation="fused" needs the package triton')
    from pacl.modeling.kernels.fused import fused_compatibility

    return fused_compatibility(patch_embeds, text_embeds, temperature)


_IMPLEMENTATIONS = {
    "naive": naive_compatibility,
    "tiled": tiled_compatibility,
    "fused": _fused_compatibility,
}


def check_embeds(patch_embeds: Tensor, text_embeds: Tensor) -> None:
    """Refuse patches and texts whose shapes, types or devices do not fit."""
    for name, value, shape in (
        ("patch_embeds", patch_embeds, "(images, patches, width)"),
        ("text_embeds", text_embeds, "(texts, width)"),
    ):
        if value.ndim != shape.count(",") + 1:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
        if not value.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {value.dtype}")
    if patch_embeds.device != text_embeds.device:
        raise ValueError(
            f"text_embeds must be on the device of patch_embeds, {patch_embeds.device}, "
            f"got {text_embeds.device}"
        )
    if patch_embeds.shape[-1] != text_embeds.shape[-1]:
        raise ValueError(
            f"text_embeds must have the width of patch_embeds, {patch_embeds.shape[-1]}, "
            f"got {text_embeds.shape[-1]}"
        )
    if patch_embeds.shape[1] == 0:
        raise ValueError(f"patch_embeds has no patches: shape {tuple(patch_embeds.shape)}")


def check_temperature(patch_temperature: float | Tensor) -> None:
    """Refuse a temperature that is not one finite number above 0."""
    value = patch_temperature
    if isinstance(value, Tensor):
        if value.ndim > 0:
            raise ValueError(
                f"patch_temperature must be one number, got a tensor {tuple(value.shape)}"
            )
        if torch.compiler.is_compiling():
            return  # to read it would break the graph
        value = value.item()
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"patch_temperature must be a finite number above 0, got {value}")


def check_finite(compatibility: Tensor, patch_embeds: Tensor, text_embeds: Tensor) -> None:
    """Name the input that is not finite; looks at the large one only where the result is not."""
    if torch.compiler.is_compiling() or compatibility.isfinite().all():
        return
    for name, value in (("patch_embeds", patch_embeds), ("text_embeds", text_embeds)):
        if not value.isfinite().all():
            raise NotFiniteError(f"{name} must be finite, got nan or infinity")
