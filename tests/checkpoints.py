"""Random-weight CLIP checkpoints in the real Hugging Face format, for everybody's tests.

directory = write_clip(tmp_path / "clip")                 tiny, milliseconds
directory = write_clip(tmp_path / "b16", size="vit-b-16") full size
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel

START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_PATTERN = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
SENTENCES = (
    "a photo of a red house behind two pine trees at dusk",
    "itap of a boat on the sea under a blue sky",
    "art of the large purple car on a road",
    "a bad photo of the small person with a dog in the snow",
    "a origami flower in a video game near the mountain",
)

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "projection_dim": 16,
        "vision": dict(hidden_size=24, heads=3, layers=4, patch_size=8, image_size=32),
        "text": dict(hidden_size=20, heads=2, layers=2),
    },
    "small-b-16": {
        "projection_dim": 16,
        "vision": dict(hidden_size=24, heads=3, layers=2, patch_size=16, image_size=224),
        "text": dict(hidden_size=20, heads=2, layers=2),
    },
    "vit-b-16": {
        "projection_dim": 512,
        "vision": dict(hidden_size=768, heads=12, layers=12, patch_size=16, image_size=224),
        "text": dict(hidden_size=512, heads=8, layers=12),
    },
    "vit-l-14": {
        "projection_dim": 768,
        "vision": dict(hidden_size=1024, heads=16, layers=24, patch_size=14, image_size=224),
        "text": dict(hidden_size=768, heads=12, layers=12),
    },
}


def write_clip(
    directory: Path,
    *,
    size: str = "tiny",
    hidden_act: str = "quick_gelu",
    legacy_eos: bool = False,
    seed: int = 0,
    sentences: Sequence[str] = SENTENCES,
    with_weights: bool = True,
) -> Path:
    """Write a CLIP checkpoint with random weights and a tokenizer trained on a few sentences.

    Args:
        directory: Made where it does not exist.
        size: A key of SIZES.
        hidden_act: "quick_gelu" (OpenAI's) or "gelu" (LAION's).
        legacy_eos: Write the wrong eos_token_id 2, as OpenAI's own checkpoints have it.
        seed: Of the weights.
        sentences: To train the tokenizer on.
        with_weights: False: configuration, tokenizer and preprocessing only.
    """
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(directory, sentences)
    spec = SIZES[size]
    eos = 2 if legacy_eos else vocabulary[END]
    text = _tower(spec["text"], hidden_act) | {
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 77,
        "bos_token_id": vocabulary[START],
        "eos_token_id": eos,
        "pad_token_id": vocabulary[END],
    }
    config = CLIPConfig(
        text_config=text,
        vision_config=_tower(spec["vision"], hidden_act),
        projection_dim=spec["projection_dim"],
    )
    config.save_pretrained(directory)
    write_preprocessing(directory, spec["vision"]["image_size"])
    if with_weights:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            clip = CLIPModel(config)
            randomise(clip)
            clip.save_pretrained(directory)
    return directory


def randomise(model: torch.nn.Module) -> None:
    """Move biases and LayerNorms off 0 and 1, where a wrong or forgotten one would not show."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "class_embedding" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
            if "position_embedding" in name:
                parameter.mul_(10)


def write_tokenizer(directory: Path, sentences: Sequence[str]) -> dict[str, int]:
    """Train a byte-level BPE with </w> as CLIP's and write its files; gives the vocabulary."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=700, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sentences, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *map("".join, merges)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    (directory / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "bos_token": START,
            "eos_token": END,
            "unk_token": END,
            "pad_token": END,
            "model_max_length": 77,
        },
    )
    return vocabulary


def write_preprocessing(directory: Path, image_size_px: int) -> None:
    """Write preprocessor_config.json as OpenAI's checkpoints have it."""
    _write_json(
        directory / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": image_size_px},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": image_size_px, "width": image_size_px},
            "do_convert_rgb": True,
            "do_normalize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
    )


def _tower(spec: dict[str, int], hidden_act: str) -> dict[str, Any]:
    tower = dict(spec)
    return {
        "hidden_size": tower["hidden_size"],
        "intermediate_size": 4 * tower.pop("hidden_size"),
        "num_attention_heads": tower.pop("heads"),
        "num_hidden_layers": tower.pop("layers"),
        "hidden_act": hidden_act,
        **tower,
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
