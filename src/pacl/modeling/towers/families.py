"""What each family of vision transformers states of itself, so that nothing is guessed.

A family is read with transformers; `vit.VitTower` walks through any of them. How many tokens come
before the patches is the length of what `prefix` returns, and is never written down twice.
"""

# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from pacl.errors import InputError
from pacl.modeling.towers.positions import BICUBIC, TableFilter
from pacl.modeling.towers.token_kinds import TOKEN_KINDS

PLAIN_KIND = "features"
"""The tokens as the tower itself makes them."""

DENSE_KINDS = (PLAIN_KIND, *(kind for kind in TOKEN_KINDS if kind != "clip"))
IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
HALVES = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
BILINEAR, CUBIC = 2, 3


@dataclass(frozen=True)
class Family:
    """A vision transformer as transformers builds it; every function takes that model."""

    architecture: str
    """Its class in transformers."""

    prefix: Callable[[Any], Tensor]
    """The tokens (N, E) before the patches, their positions added."""

    kernel: Callable[[Any], tuple[Tensor, Tensor | None]]
    """Weight (E, 3, P, P) and bias of the patch embedding."""

    positions: Callable[[Any], Tensor] | None
    """Learned positions (T, E) of the patches; None: they are rotated in by each block."""

    blocks: Callable[[Any], Sequence[Any]]
    """The transformer blocks, first to last."""

    norm: Callable[[Any], nn.Module]
    """The final norm, which `last_hidden_state` has; Identity: there is none."""

    processor: Mapping[str, Any]
    """What the family's image processor does where preprocessor_config.json is silent."""

    licence: str
    """Licence of the published weights."""

    table_filter: TableFilter = BICUBIC
    """How `positions` are read at another grid."""

    rotations: Callable[[Any, Tensor], dict[str, Any]] | None = None
    """Arguments of the blocks that depend on the size of the images."""

    condition: Callable[[Any, Tensor], Tensor] | None = None
    """What the model does to the images first; None: nothing."""

    parts: Callable[[Any], Any] = field(default=lambda block: block)
    """A block in the words of `token_kinds.apply_block`."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of its class beside the configuration."""

    token_kinds: tuple[str, ...] = DENSE_KINDS
    """The kinds of patch tokens that make sense."""

    apart: str = "it was trained without texts"
    """Why its normed patch tokens mean nothing beside texts until an embedder is trained; empty:
    they lie in the space of its own text half."""


def _with_cls_position(model: Any) -> Tensor:
    embeddings = model.embeddings
    return embeddings.cls_token[0] + embeddings.position_embeddings[0, :1]


def _with_registers(model: Any) -> Tensor:
    """CLS with its position, then registers without one."""
    return torch.cat([_with_cls_position(model), model.embeddings.register_tokens[0]])


def _dino_parts(block: Any) -> Any:
    """Name a DINO block's modules as CLIP's are named; LayerScale joins what it scales."""
    attention = block.attention
    return SimpleNamespace(
        layer_norm1=block.norm1,
        layer_norm2=block.norm2,
        mlp=nn.Sequential(block.mlp, block.layer_scale2),
        self_attn=SimpleNamespace(
            q_proj=attention.q_proj,
            k_proj=attention.k_proj,
            v_proj=attention.v_proj,
            out_proj=nn.Sequential(attention.o_proj, block.layer_scale1),
            num_heads=attention.num_attention_heads,
        ),
    )


def _vit_parts(block: Any) -> Any:
    """Name a plain ViT block's modules as CLIP's are named."""
    attention = block.attention
    return SimpleNamespace(
        layer_norm1=block.layernorm_before,
        layer_norm2=block.layernorm_after,
        mlp=block.mlp,
        self_attn=SimpleNamespace(
            q_proj=attention.q_proj,
            k_proj=attention.k_proj,
            v_proj=attention.v_proj,
            out_proj=attention.o_proj,
            num_heads=attention.num_attention_heads,
        ),
    )


def _projection(model: Any) -> tuple[Tensor, Tensor | None]:
    projection = model.embeddings.patch_embeddings.projection
    return projection.weight, projection.bias


def _unfolded(model: Any) -> tuple[Tensor, None]:
    """RADIO multiplies unfolded patches, channel by channel: a convolution by another name."""
    embeddings = model.embeddings
    side = embeddings.patch_size
    return embeddings.patch_projection.weight.unflatten(1, (-1, side, side)), None


def _dino(architecture: str, **differences: Any) -> Family:
    settings: dict[str, Any] = {
        "prefix": _with_cls_position,
        "kernel": _projection,
        "positions": lambda model: model.embeddings.position_embeddings[0, 1:],
        "blocks": lambda model: model.encoder.layer,
        "norm": lambda model: model.layernorm,
        "processor": {"size": 256, "crop_size": 224, "resample": CUBIC, **IMAGENET},
        "licence": "Apache-2.0",
        "parts": _dino_parts,
    }
    return Family(architecture, **(settings | differences))


FAMILIES: dict[str, Family] = {
    "vit": _dino(  # DINO's own, the first, among others
        "ViTModel",
        blocks=lambda model: model.layers,
        parts=_vit_parts,
        options={"add_pooling_layer": False},  # DINO's checkpoints have none
        processor={
            "size": {"height": 224, "width": 224},
            "do_center_crop": False,
            "resample": BILINEAR,
            **HALVES,
        },
    ),
    "dinov2": _dino("Dinov2Model"),
    "dinov2_with_registers": _dino(
        "Dinov2WithRegistersModel",
        prefix=_with_registers,
        table_filter=TableFilter(is_antialiased=True),
    ),
    "dinov3_vit": _dino(
        "DINOv3ViTModel",
        prefix=lambda model: torch.cat(
            [model.embeddings.cls_token[0], model.embeddings.register_tokens[0]]
        ),
        kernel=lambda model: (
            model.embeddings.patch_embeddings.weight,
            model.embeddings.patch_embeddings.bias,
        ),
        positions=None,
        rotations=lambda model, images: {"position_embeddings": model.rope_embeddings(images)},
        blocks=lambda model: model.model.layer,
        norm=lambda model: model.norm,
        processor={
            "size": {"height": 224, "width": 224},
            "do_center_crop": False,
            "resample": BILINEAR,
            **IMAGENET,
        },
        licence="DINOv3 License (gated; covers what is derived from it)",
        token_kinds=(PLAIN_KIND,),
    ),
    "siglip_vision_model": Family(
        "SiglipVisionModel",
        prefix=lambda model: model.embeddings.position_embedding.weight[:0],
        kernel=lambda model: (
            model.embeddings.patch_embedding.weight,
            model.embeddings.patch_embedding.bias,
        ),
        positions=lambda model: model.embeddings.position_embedding.weight,
        blocks=lambda model: model.encoder.layers,
        norm=lambda model: model.post_layernorm,
        processor={
            "size": {"height": 224, "width": 224},
            "do_center_crop": False,
            "resample": CUBIC,
            **HALVES,
        },
        licence="Apache-2.0",
        apart="its texts are compared with a pooled embedding, which a probe attends to; a patch's "
        "value alone has no projection to their space",
    ),
    "tipsv2_vision_model": _dino(
        "Tipsv2VisionModel",
        prefix=_with_registers,
        table_filter=TableFilter("bilinear", is_antialiased=True),
        processor={
            "size": {"height": 448, "width": 448},
            "do_center_crop": False,
            "do_normalize": False,
            "resample": BILINEAR,
        },
        licence="Apache-2.0 (code), CC-BY 4.0 (weights)",
        apart="",
    ),
    "radio": _dino(
        "RadioModel",
        condition=lambda model, images: model.input_conditioner(images),
        prefix=lambda model: model.embeddings.cls_register_token,
        kernel=_unfolded,
        positions=lambda model: model.embeddings.position_embedding[0],
        table_filter=TableFilter("bilinear", is_cropped=True),
        norm=lambda model: nn.Identity(),
        processor={
            "size": {"height": 224, "width": 224},
            "do_center_crop": False,
            "do_normalize": False,
            "resample": CUBIC,
        },
        licence="NVIDIA Open Model License",
    ),
}
"""The families by `model_type` of config.json."""

PAIRS = {"siglip": "SiglipModel", "tipsv2": "Tipsv2Model"}
"""Models of a vision and a text tower by `model_type`, and their class in transformers."""

NAFLEX = ("siglip2", "siglip2_vision_model", "siglip2_text_model")
"""Values of `model_type` of SigLIP 2 for images of any shape; of a fixed size it is a "siglip"."""


def refuse_naflex(model_type: str | None, source: str | Path) -> None:
    """Raise InputError where a `model_type` is that of a SigLIP 2 for images of any shape."""
    if model_type in NAFLEX:
        raise InputError(
            f"{source} is a NaFlex SigLIP 2, which pacl does not read",
            why="it takes images as lists of patches, each with a grid of its own",
            fix="give a SigLIP 2 of a fixed size, such as google/siglip2-base-patch16-224",
        )
