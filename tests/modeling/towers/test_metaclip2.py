"""MetaCLIP 2: CLIP's modules with a tokenizer of its own, as transformers runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional as F

from checkpoints import randomise, write_preprocessing
from foreign_towers import N_TOKENS, write_word_tokenizer
from pacl.modeling.towers import load_text_tower, load_vision_tower
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.load import load_pair

TEXTS = ["a cat", "a photo of the dog", "sky"]
END = 3  # [SEP] of the word tokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("metaclip2")
    common = {"num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 48}
    config = transformers.MetaClip2Config(
        vision_config={**common, "hidden_size": 24, "image_size": 32, "patch_size": 8},
        text_config={
            **common,
            "hidden_size": 30,
            "vocab_size": N_TOKENS,
            "max_position_embeddings": 16,
            "bos_token_id": 2,
            "eos_token_id": END,
            "pad_token_id": 0,
        },
        projection_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.MetaClip2Model(config)
        randomise(model)
        model.save_pretrained(directory)
    write_word_tokenizer(directory)
    write_preprocessing(directory, 32)
    return directory


@pytest.fixture(scope="module")
def library(directory: Path) -> Any:
    return transformers.MetaClip2Model.from_pretrained(directory).eval()


def images(*size: int) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(32, 32), (24, 56)])
@torch.no_grad()
def test_images_are_the_librarys(directory: Path, library: Any, size: tuple[int, int]) -> None:
    tower = load_vision_tower(directory)
    assert isinstance(tower, HfClip)
    x = images(*size)
    options = {"pixel_values": x, "interpolate_pos_encoding": True}
    output = library.vision_model(**options)
    tokens, grid = tower.encode_patches(x, kind="clip", norm=False)
    assert grid == (size[0] // 8, size[1] // 8)
    expected = output.last_hidden_state[:, 1:]
    assert (tokens - expected).abs().max() <= 1e-4 * expected.abs().max()
    normed, _ = tower.encode_patches(x, kind="clip")
    expected = library.vision_model.post_layernorm(expected)
    assert (normed - expected).abs().max() <= 1e-4 * expected.abs().max()
    pooled = F.normalize(library.visual_projection(output.pooler_output), dim=-1)
    torch.testing.assert_close(tower.encode_images(x), pooled, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_texts_are_the_librarys(directory: Path, library: Any) -> None:
    tower = load_text_tower(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    found = tokenizer(TEXTS, padding=True, return_tensors="pt")
    ids, mask, _ = tower.tokenize(TEXTS)
    assert torch.equal(ids, found.input_ids)
    assert torch.equal(mask, found.attention_mask.bool())
    output = library.text_model(input_ids=ids, attention_mask=found.attention_mask)
    expected = F.normalize(library.text_projection(output.pooler_output), dim=-1)
    torch.testing.assert_close(tower.encode_texts(TEXTS), expected, atol=1e-5, rtol=1e-4)


def test_it_is_one_clip_whose_texts_are_not_cleaned(directory: Path) -> None:
    vision, text = load_pair(directory, directory)
    assert vision is text
    assert isinstance(text, HfClip)
    upper, lower = text.tokenize(["A Cat"])[0], text.tokenize(["a cat"])[0]
    assert not torch.equal(upper, lower)  # its own tokenizer knows capitals
