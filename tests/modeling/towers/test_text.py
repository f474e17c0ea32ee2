"""Text encoders other than CLIP's: embeddings are the library's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from torch.nn import functional as F

from foreign_towers import N_TOKENS, write_vit, write_word_tokenizer
from pacl.errors import InputError
from pacl.modeling.towers import load_text_tower
from pacl.modeling.towers.load import load_pair

TEXTS = ["a cat", "a photo of the dog", "sky"]


def write_pair(name: str, directory: Path, **options: str) -> Path:
    write_vit(name, directory)
    write_word_tokenizer(directory, **options)
    return directory


def write_sentence_encoder(directory: Path, mode: str) -> Path:
    config = transformers.BertConfig(
        vocab_size=N_TOKENS,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        max_position_embeddings=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(directory)
    write_word_tokenizer(directory)
    kinds = ("Transformer", "Pooling")
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    (directory / "1_Pooling").mkdir()
    values = {"word_embedding_dimension": 24, f"pooling_mode_{mode}": True, "pooling_mode_x": False}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(values))
    return directory


@pytest.mark.parametrize("side", ["right", "left"])
def test_siglip_pools_its_last_padded_place(tmp_path: Path, side: str) -> None:
    directory = write_pair("SiglipModel", tmp_path, padding_side=side)
    tower = load_text_tower(directory)
    model = transformers.SiglipModel.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    ids = tokenizer(TEXTS, padding="max_length", max_length=16, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = F.normalize(model.text_model(input_ids=ids).pooler_output, dim=-1)
        scale = model.logit_scale.exp().item()
    torch.testing.assert_close(tower.encode_texts(TEXTS), expected)
    torch.testing.assert_close(tower.encode_texts(["A CAT"])[0], expected[0])
    assert (tower.context_length, tower.text_width) == (16, 24)
    assert tower.logit_scale == pytest.approx(scale)


def test_tipsv2_averages_its_real_tokens(tmp_path: Path) -> None:
    directory = write_pair("Tipsv2Model", tmp_path)
    tower = load_text_tower(directory)
    model = transformers.Tipsv2Model.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    for number, text in enumerate(TEXTS):  # one at a time: nothing is padded
        with torch.no_grad():
            output = model.text_model(**tokenizer(text, return_tensors="pt"))
        expected = F.normalize(output.last_hidden_state.mean(dim=1), dim=-1)
        found = tower.encode_texts(TEXTS)[number : number + 1]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert tower.logit_scale == pytest.approx(1 / model.temperature.item())


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token"])
def test_a_sentence_encoder_pools_as_its_own_file_says(tmp_path: Path, mode: str) -> None:
    directory = write_sentence_encoder(tmp_path, mode)
    tower = load_text_tower(directory)
    model = transformers.BertModel.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    found = tower.encode_texts(TEXTS)
    for number, text in enumerate(TEXTS):
        with torch.no_grad():
            tokens = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        pooled = tokens.mean(dim=0) if mode == "mean_tokens" else tokens[0]
        torch.testing.assert_close(found[number], F.normalize(pooled, dim=0), atol=1e-5, rtol=1e-4)
    assert tower.context_length == 8
    ids, mask, n_cut = tower.tokenize(["a cat " * 10, "sky"])
    assert (ids.shape, n_cut) == ((2, 8), 1)
    assert mask.sum(dim=1).tolist() == [8, 3]


def test_poolings_differ_in_fingerprint(tmp_path: Path) -> None:
    first = load_text_tower(write_sentence_encoder(tmp_path / "a", "mean_tokens"))
    second = load_text_tower(write_sentence_encoder(tmp_path / "b", "cls_token"))
    assert first.fingerprint != second.fingerprint


def test_what_cannot_be_pooled_is_refused(tmp_path: Path) -> None:
    directory = write_sentence_encoder(tmp_path, "max_tokens")
    with pytest.raises(InputError, match="asks for a pooling"):
        load_text_tower(directory)
    modules = json.loads((directory / "modules.json").read_text())
    modules.append({"type": "sentence_transformers.models.Dense"})
    (directory / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="Dense module"):
        load_text_tower(directory)


@pytest.mark.parametrize("name", ["SiglipModel", "Tipsv2Model"])
def test_the_tokenizer_alone_gives_the_same_ids(tmp_path: Path, name: str) -> None:
    tower = load_text_tower(write_pair(name, tmp_path))
    tokenizer = Tokenizer.from_str(tower.tokenizer_json())
    texts = [*TEXTS, "A CAT", "a cat " * 20]
    ids, mask, _ = tower.tokenize(texts)
    found = tokenizer.encode_batch(texts)
    assert [each.ids for each in found] == ids.tolist()
    masks = torch.tensor([each.attention_mask for each in found])
    given = tower.encode_tokens(ids, masks.bool())
    torch.testing.assert_close(given, tower.encode_tokens(ids, mask))


def test_both_towers_of_one_siglip(tmp_path: Path) -> None:
    directory = write_pair("SiglipModel", tmp_path)
    vision, text = load_pair(directory, directory)
    assert (vision.width, text.text_width) == (24, 24)
    assert vision.source == text.source == str(directory)


def test_a_vision_tower_is_no_text_tower(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no text tower"):
        load_text_tower(write_vit("Dinov2Model", tmp_path))
