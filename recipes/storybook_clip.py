"""Write the untrained Storybook CLIP: configuration, tokenizer and preprocessing, no weights.

    python recipes/storybook_clip.py CAPTIONS.csv DIRECTORY

The tokenizer is a byte-level BPE in CLIP's own format, learned from the captions, the package's
noun lexicon and the prompt templates.

`pacl train --objective clip --model DIRECTORY` then starts from random weights.
"""

from __future__ import annotations

import csv
import json
import sys
from importlib.resources import files
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPTokenizer

from pacl.modeling.towers.preprocess import OPENAI_MEAN, OPENAI_STD
from pacl.text.templates import TEMPLATES

START, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY_SIZE = 2048
CONTEXT_LENGTH = 40
IMAGE_SIZE_PX, PATCH_SIZE_PX, JOINT_WIDTH = 128, 8, 192
VISION = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3}
TEXT = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}


def learn_tokenizer(texts: list[str], directory: Path) -> CLIPTokenizer:
    """Learn CLIP's kind of BPE (lower case, "</w>" at the end of words) and save it."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.model.save(str(directory))
    return CLIPTokenizer(
        vocab=str(directory / "vocab.json"),
        merges=str(directory / "merges.txt"),
        model_max_length=CONTEXT_LENGTH,
    )


def main(captions_path: str, output: str) -> None:
    directory = Path(output)
    directory.mkdir(parents=True, exist_ok=True)
    with Path(captions_path).open(encoding="utf-8", newline="") as file:
        texts = [row["caption"] for row in csv.DictReader(file)]
    lexicon = (files("pacl") / "data" / "nouns.txt").read_text(encoding="utf-8").split("\n")
    texts += lexicon + [template for group in TEMPLATES.values() for template in group]
    tokenizer = learn_tokenizer(texts, directory)
    tokenizer.save_pretrained(directory)
    side = {"patch_size": PATCH_SIZE_PX, "image_size": IMAGE_SIZE_PX}
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        projection_dim=JOINT_WIDTH,
        vision_config={
            **VISION,
            **side,
            "intermediate_size": 4 * VISION["hidden_size"],
            "hidden_act": "gelu",
        },
        text_config={
            **TEXT,
            **ends,
            "intermediate_size": 4 * TEXT["hidden_size"],
            "hidden_act": "gelu",
            "vocab_size": len(tokenizer),
            "max_position_embeddings": CONTEXT_LENGTH,
        },
    )
    config.save_pretrained(directory)
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": IMAGE_SIZE_PX},
        "crop_size": {"height": IMAGE_SIZE_PX, "width": IMAGE_SIZE_PX},
        "image_mean": OPENAI_MEAN,
        "image_std": OPENAI_STD,
        "resample": 3,
    }
    text = json.dumps(preprocessing, indent=2)
    (directory / "preprocessor_config.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
