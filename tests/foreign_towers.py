"""Small towers that are no CLIP, in the formats that pacl reads, for everybody's tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
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
