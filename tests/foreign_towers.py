"""Small towers that are no CLIP, in the formats that pacl reads, for everybody's tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import EfficientNetConfig, EfficientNetModel, ResNetConfig, ResNetModel

from checkpoints import SENTENCES, randomise, write_preprocessing

WIDTHS = (8, 12, 16)


def write_resnet(directory: Path) -> Path:
    """Write a ResNet with random weights: hidden states at strides 4, 4, 8 and 16."""
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=list(WIDTHS), depths=[1, 1, 1], layer_type="basic"
    )
    return _write(directory, ResNetModel, config)


def write_efficientnet(directory: Path, **settings: Any) -> Path:
    """Write an EfficientNet with random weights: 5 hidden states, at strides 2, 2, 4, 8 and 16."""
    config = EfficientNetConfig(
        width_coefficient=1.0,
        depth_coefficient=1.0,
        in_channels=[32, 8, 8, 16],
        out_channels=[8, 8, 16, 24],
        kernel_sizes=[3, 3, 5, 3],
        strides=[1, 2, 2, 2],
        num_block_repeats=[1, 1, 1, 1],
        expand_ratios=[1, 2, 2, 2],
        hidden_dim=1280,
    )
    return _write(directory, EfficientNetModel, config, **settings)


def _write(directory: Path, kind: Any, config: Any, **settings: Any) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config)
        randomise(model)
        model.save_pretrained(directory)
    write_preprocessing(directory, 32)
    if settings:
        (directory / "tower.json").write_text(json.dumps(settings))
    return directory


def write_words(
    directory: Path,
    *,
    width: int = 20,
    seed: int = 0,
    with_weights: bool = False,
    sentences: Sequence[str] = SENTENCES,
) -> Path:
    """Write random vectors for the words of a few sentences, and for unknown ones."""
    directory.mkdir(parents=True, exist_ok=True)
    words = sorted({word for sentence in sentences for word in sentence.lower().split()})
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    draws = torch.Generator().manual_seed(seed)
    tensors = {"embeddings": torch.randn(len(vocabulary), width, generator=draws)}
    if with_weights:
        tensors["weights"] = torch.rand(len(vocabulary), generator=draws)
    save_file(tensors, directory / "model.safetensors")
    return directory


VITS = {
    "ViTModel": dict(image_size=64, patch_size=16, intermediate_size=48),
    "Dinov2Model": dict(image_size=56, patch_size=14),
    "Dinov2WithRegistersModel": dict(image_size=56, patch_size=14, num_register_tokens=4),
    "DINOv3ViTModel": dict(
        image_size=64, patch_size=16, num_register_tokens=4, intermediate_size=48
    ),
    "SiglipVisionModel": dict(image_size=32, patch_size=8, intermediate_size=48),
    "Tipsv2VisionModel": dict(image_size=56, patch_size=14),
    "RadioModel": dict(image_size=64, max_img_size=128, patch_size=16),
}
"""Vision transformers by their class in transformers, with what is not common to all."""

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *"a photo of the cat dog sky road tree grass".split())
N_TOKENS = len(WORDS)


WHOLES = {"SiglipModel": "SiglipVisionModel", "Tipsv2Model": "Tipsv2VisionModel"}
"""Models of two towers, by the class of their vision tower."""


def write_vit(name: str, directory: Path, **changes: Any) -> Path:
    """Write a random vision transformer, or a pair with one, in transformers' format."""
    vision = {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        **VITS[WHOLES.get(name, name)],
        **changes,
    }
    config = getattr(transformers, name.removesuffix("Model") + "Config")
    if name in WHOLES:
        text = {
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 48,
            "vocab_size": N_TOKENS,
            "max_position_embeddings": 16,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": 0,
        }
        if name == "SiglipModel":
            text["projection_size"] = 24
        values = config(vision_config=vision, text_config=text)
    else:
        values = config(**vision)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = getattr(transformers, name)(values).eval()
        for key, value in model.named_parameters():  # biases of 0 and flat positions hide mistakes
            if value.ndim == 1 or any(part in key for part in ("register", "cls_token", "probe")):
                value.add_(0.1 * torch.randn_like(value))
            if "position" in key:
                value.mul_(20)
            if key.endswith(("q_proj.weight", "k_proj.weight")):
                value.mul_(0.4 / value.std())  # uniform attention would hide a wrong rotation
    model.save_pretrained(directory)
    (directory / "preprocessor_config.json").write_text("{}", encoding="utf-8")
    return directory


def write_word_tokenizer(directory: Path, **options: Any) -> None:
    """Write a tokenizer of whole words, in the format that transformers reads."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", **options
    ).save_pretrained(directory)
