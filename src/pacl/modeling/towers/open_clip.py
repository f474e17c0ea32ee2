"""CLIPs in open_clip's own format, read as transformers' CLIP: open_clip itself is not needed.

A plain CLIP, a vision transformer with CLS and a causal text transformer (OpenAI's, LAION's,
BioCLIP, RemoteCLIP), has the same layers in both libraries; the names differ, queries, keys and
values are one matrix here, and projections are stored the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor

from pacl.errors import InputError
from pacl.modeling.towers import files
from pacl.modeling.towers.preprocess import OPENAI_MEAN, OPENAI_STD

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", files.WEIGHTS)
"""The names that open_clip gives its weights, in the order in which it looks for them."""

VISION = {"image_size": 224, "layers": 12, "width": 768, "head_width": 64, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
"""What is read of vision_cfg and text_cfg, and what holds where they are silent."""

MLP_RATIO = 4.0
SILENT = {"patch_dropout", "output_tokens", "attn_pooler_queries", "attn_pooler_heads"}
"""Settings that change nothing in a plain CLIP that is not trained."""

PLAIN = {"pool_type": {"tok", "argmax"}, "pos_embed_type": {"learnable"}, "proj_type": {"linear"}}
"""Settings that a plain CLIP may name; any other must be off."""

RESAMPLING = {"bilinear": 2, "bicubic": 3}
SUPPORTED = (
    "a plain CLIP (vision transformer with CLS token, causal text transformer), or one whose "
    "image tower is timm's as two towers: --vision NAME --text NAME"
)

NAMES = (
    (r"^text\.(?=transformer|token_embedding|positional_embedding|ln_final|text_projection)", ""),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"\.attn\.in_proj_", ".self_attn.in_proj."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
"""Patterns of open_clip's names and what transformers calls them, applied one after the other."""


def read_config(directory: Path) -> dict[str, Any]:
    """Return open_clip_config.json in the words of transformers' config.json.

    Raises:
        InputError: It is no plain CLIP, or no file of open_clip.
    """
    model = read_model(directory)
    _refuse(directory, [*list_odd(model, "vision"), *list_odd(model, "text")])
    vision = VISION | model["vision_cfg"]
    n_heads = vision["width"] // vision["head_width"]
    return {
        "model_type": "clip",
        "projection_dim": model["embed_dim"],
        "vision_config": {
            **_describe_blocks(vision, n_heads, _activation(model)),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
        },
        "text_config": read_text_config(directory),
    }


def read_text_config(directory: Path, *, but: Collection[str] = ()) -> dict[str, Any]:
    """Return text_cfg of open_clip_config.json in the words of transformers' CLIPTextConfig.

    Args:
        directory: The checkpoint.
        but: Settings beyond a plain CLIP's that the caller sees to.

    Raises:
        InputError: It is no CLIP's text transformer.
    """
    model = read_model(directory)
    _refuse(directory, list_odd(model, "text", but=but))
    text = TEXT | model["text_cfg"]
    return {
        **_describe_blocks(text, text["heads"], _activation(model)),
        "max_position_embeddings": text["context_length"],
        "vocab_size": text["vocab_size"],
        "projection_dim": model["embed_dim"],
    }


def is_plain(directory: Path) -> bool:
    """Whether both towers are those of a plain CLIP."""
    model = read_model(directory)
    return not [*list_odd(model, "vision"), *list_odd(model, "text")]


def is_timm(directory: Path) -> bool:
    """Whether the image tower is a network of timm."""
    return "timm_model_name" in read_model(directory)["vision_cfg"]


def read_model(directory: Path) -> dict[str, Any]:
    """Return model_cfg of open_clip_config.json.

    Raises:
        InputError: There is none, or it lacks a tower.
    """
    path = directory / files.OPEN_CLIP_CONFIG
    values = files.read_json(path)
    model = values.get("model_cfg", values)
    missing = [name for name in ("embed_dim", "vision_cfg", "text_cfg") if name not in model]
    if missing:
        raise InputError(f"{path} describes no CLIP", why=f"it lacks {', '.join(missing)}")
    return model


def list_odd(model: dict[str, Any], half: str, *, but: Collection[str] = ()) -> list[str]:
    """List what a tower's settings ask for beyond a plain CLIP.

    Args:
        model: As `read_model` returns it.
        half: "vision" or "text".
        but: Settings that are left out.
    """
    config = model[f"{half}_cfg"]
    known = SILENT | {*VISION, *TEXT, "mlp_ratio", *but}
    odd = {
        name: value
        for name, value in config.items()
        if name not in known and value and value not in PLAIN.get(name, ())
    }
    if isinstance(config.get("layers"), list):  # a ResNet's stages
        odd["layers"] = config["layers"]
    if "multimodal_cfg" in model:
        odd["multimodal_cfg"] = "(CoCa)"
    return [f"{half} {name} {value}" for name, value in odd.items()]


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Read open_clip's weights on the CPU, by the names and in the shapes of transformers.

    Raises:
        InputError: No safetensors (pickles are refused), or the file is damaged.
    """
    weights: dict[str, Tensor] = {}
    for name, value in read_stored(directory).items():
        for pattern, ours in NAMES:
            name = re.sub(pattern, ours, name)
        if name in {"visual_projection.weight", "text_projection.weight"}:
            value = value.T.contiguous()
        if ".in_proj." in name:
            for part, third in zip("qkv", value.chunk(3), strict=True):
                weights[name.replace("in_proj", f"{part}_proj")] = third.contiguous()
        elif name == "logit_scale":
            weights[name] = value.reshape(())
        elif name != "logit_bias":  # the same for all texts: no softmax sees it
            weights[name] = value
    return weights


def read_stored(directory: Path) -> dict[str, Tensor]:
    """Read open_clip's weights as they are stored.

    Raises:
        InputError: No safetensors (pickles are refused), or the file is damaged.
    """
    for name in WEIGHTS:
        if (directory / name).is_file():
            return files.read_safetensors(directory / name)
    raise InputError(
        f"{directory} holds no {' or '.join(WEIGHTS)}",
        why=files.found_files(directory),
        fix="where you trust its pickle, convert it once: safetensors.torch.save_file("
        f'torch.load(FILE, weights_only=True), "{WEIGHTS[0]}")',
    )


def read_preprocessing(directory: Path) -> dict[str, Any]:
    """Return preprocess_cfg of open_clip_config.json as a preprocessor_config.json has it.

    Raises:
        InputError: It asks for something that pacl does not do.
    """
    path = directory / files.OPEN_CLIP_CONFIG
    given: dict[str, Any] = files.read_json(path).get("preprocess_cfg") or {}
    mode, filter_name = given.get("resize_mode", "shortest"), given.get("interpolation", "bicubic")
    if mode not in {"shortest", "squash"} or filter_name not in RESAMPLING:
        raise InputError(
            f"{path} asks for a resizing that pacl does not do",
            why=f"resize_mode {mode}, interpolation {filter_name}; known: shortest, squash; "
            f"{', '.join(RESAMPLING)}",
        )
    side = (VISION | read_model(directory)["vision_cfg"])["image_size"]
    height, width = (side, side) if isinstance(side, int) else side
    exact = {"height": height, "width": width}
    is_short = mode == "shortest" and height == width
    return {
        "size": {"shortest_edge": height} if is_short else exact,
        "do_center_crop": is_short,
        "crop_size": exact,
        "resample": RESAMPLING[filter_name],
        "image_mean": given.get("mean", OPENAI_MEAN),
        "image_std": given.get("std", OPENAI_STD),
    }


def _refuse(directory: Path, odd: list[str]) -> None:
    if odd:
        raise InputError(
            f"{directory} is not a plain CLIP",
            why=f"{files.OPEN_CLIP_CONFIG} asks for {', '.join(odd)}",
            fix=f"give {SUPPORTED}",
        )


def _activation(model: dict[str, Any]) -> str:
    return "quick_gelu" if model.get("quick_gelu") else "gelu"


def _describe_blocks(config: dict[str, Any], n_heads: int, activation: str) -> dict[str, Any]:
    return {
        "hidden_size": config["width"],
        "intermediate_size": int(config["width"] * config.get("mlp_ratio", MLP_RATIO)),
        "num_hidden_layers": config["layers"],
        "num_attention_heads": n_heads,
        "hidden_act": activation,
    }
