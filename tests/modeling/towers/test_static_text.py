"""Static text towers: a text is the mean of its words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from foreign_towers import write_words
from pacl.errors import InputError
from pacl.modeling.towers.load import load_text_tower
from pacl.modeling.towers.static_text import StaticText

TEXTS = ["a red house", "the sea under a blue sky", "boat"]


@pytest.mark.parametrize("with_weights", [False, True])
def test_a_text_is_the_mean_of_its_words(tmp_path: Path, with_weights: bool) -> None:
    directory = write_words(tmp_path, with_weights=with_weights)
    tensors = load_file(directory / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tower = StaticText.from_pretrained(directory)
    found = tower.encode_texts(TEXTS)
    for embed, text in zip(found, TEXTS, strict=True):
        total = torch.zeros(tower.text_width, dtype=torch.float64)
        for token in tokenizer.encode(text).ids:
            weight = tensors["weights"][token].double() if with_weights else 1.0
            total += weight * tensors["embeddings"][token].double()
        torch.testing.assert_close(embed.double(), total / total.norm(), atol=1e-6, rtol=0)


def test_the_key_of_wordllama_is_known_too(tmp_path: Path) -> None:
    path = write_words(tmp_path) / "model.safetensors"
    expected = StaticText.from_pretrained(tmp_path).encode_texts(TEXTS)
    save_file({"embedding.weight": load_file(path)["embeddings"]}, path)
    assert torch.equal(load_text_tower(tmp_path).encode_texts(TEXTS), expected)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = write_words(tmp_path) / "model.safetensors"
    tower = StaticText.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="no word"):
        tower.encode_texts(["a boat", " "])
    save_file({"embeddings": torch.zeros(3, 2)}, path)
    with pytest.raises(InputError, match="does not fit"):
        load_text_tower(tmp_path)
    save_file({"other": torch.zeros(3, 2)}, path)
    with pytest.raises(InputError, match=r"(?s)no table.*found other"):
        load_text_tower(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="no text tower"):
        load_text_tower(tmp_path)
