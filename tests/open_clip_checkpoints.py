"""Checkpoints in open_clip's own format, written from transformers' CLIP, for everybody's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from checkpoints import write_clip


def write_open_clip(
    directory: Path,
    *,
    size: str = "tiny",
    quick_gelu: bool = False,
    is_custom: bool = False,
    preprocess: dict[str, Any] | None = None,
) -> Path:
    """Write a random CLIP as open_clip's `save_for_hf` does: configuration, weights, tokenizer.

    Args:
        directory: Made where it does not exist.
        size: A key of `checkpoints.SIZES`.
        quick_gelu: Whether its activation is OpenAI's.
        is_custom: Whether its text tower's names begin with "text.", as in CustomTextCLIP.
        preprocess: preprocess_cfg.
    """
    write_clip(directory, size=size, hidden_act="quick_gelu" if quick_gelu else "gelu")
    config = json.loads((directory / "config.json").read_text())
    vision, text = config["vision_config"], config["text_config"]
    model_cfg = {
        "embed_dim": config["projection_dim"],
        "quick_gelu": quick_gelu,
        "custom_text": is_custom,
        "vision_cfg": {
            "image_size": vision["image_size"],
            "layers": vision["num_hidden_layers"],
            "width": vision["hidden_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            "patch_size": vision["patch_size"],
        },
        "text_cfg": {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "layers": text["num_hidden_layers"],
        },
    }
    values = {"model_cfg": model_cfg, "preprocess_cfg": preprocess or {}}
    (directory / "open_clip_config.json").write_text(json.dumps(values))
    stored = _rename(load_file(directory / "model.safetensors"), "text." if is_custom else "")
    save_file(stored, directory / "open_clip_model.safetensors")
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (directory / name).unlink()
    return directory


def _rename(clip: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    stored = {"logit_scale": clip["logit_scale"]}
    for half, tower, ours in (("vision_model", "visual.", ""), ("text_model", prefix, "")):
        embeddings = f"{half}.embeddings"
        stored[f"{tower}positional_embedding"] = clip[f"{embeddings}.position_embedding.weight"]
        n_layers = len([name for name in clip if name.startswith(half) and "fc1.weight" in name])
        for number in range(n_layers):
            theirs = f"{half}.encoder.layers.{number}"
            ours = f"{tower}transformer.resblocks.{number}"
            for kind in ("weight", "bias"):
                parts = [clip[f"{theirs}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                stored[f"{ours}.attn.in_proj_{kind}"] = torch.cat(parts)
                for name, other in (
                    ("self_attn.out_proj", "attn.out_proj"),
                    ("layer_norm1", "ln_1"),
                    ("layer_norm2", "ln_2"),
                    ("mlp.fc1", "mlp.c_fc"),
                    ("mlp.fc2", "mlp.c_proj"),
                ):
                    stored[f"{ours}.{other}.{kind}"] = clip[f"{theirs}.{name}.{kind}"]
    for kind in ("weight", "bias"):
        stored[f"visual.ln_pre.{kind}"] = clip[f"vision_model.pre_layrnorm.{kind}"]
        stored[f"visual.ln_post.{kind}"] = clip[f"vision_model.post_layernorm.{kind}"]
        stored[f"{prefix}ln_final.{kind}"] = clip[f"text_model.final_layer_norm.{kind}"]
    stored["visual.conv1.weight"] = clip["vision_model.embeddings.patch_embedding.weight"]
    stored["visual.class_embedding"] = clip["vision_model.embeddings.class_embedding"]
    stored["visual.proj"] = clip["visual_projection.weight"].T.contiguous()
    stored[f"{prefix}token_embedding.weight"] = clip["text_model.embeddings.token_embedding.weight"]
    stored[f"{prefix}text_projection"] = clip["text_projection.weight"].T.contiguous()
    return stored
