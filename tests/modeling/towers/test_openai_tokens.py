"""Texts get the ids that OpenAI's tokenizer gives them: recorded with its own code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from checkpoints import write_clip
from pacl.modeling.towers.hf import HfClip
from pacl.text.cleaning import clean_text, cleaning_mark, is_plain

RECORDED = json.loads(Path(__file__).with_name("openai_tokens.json").read_text("utf-8"))
TEXTS: dict[str, list[int]] = RECORDED["records"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def with_openais_words(directory: Path) -> HfClip:
    (directory / "vocab.json").write_text(json.dumps(RECORDED["vocab"]), "utf-8")
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *RECORDED["merges"]]))
    return HfClip.from_pretrained(directory)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_openais(with_openais_words: HfClip, text: str) -> None:
    ids, mask, n_cut = with_openais_words.tokenize([text])
    start, end = RECORDED["vocab"]["<|startoftext|>"], RECORDED["vocab"]["<|endoftext|>"]
    expected = [start, *TEXTS[text], end]
    assert ids[0].tolist() == ([*expected[:76], end] if n_cut else expected)
    assert mask.all()


def test_end_token_of_a_user_does_not_end_the_text(tmp_path: Path) -> None:
    encoder = HfClip.from_pretrained(write_clip(tmp_path))
    ids, mask, _ = encoder.tokenize(["a red <|endoftext|> house", "a red <|endoftext|> boat"])
    assert (ids == encoder.tokenizer.eos_token_id).sum(dim=1).tolist() == [2, 2]
    red_house, red_boat = encoder.encode_tokens(ids, mask)
    assert (red_house - red_boat).abs().max() > 1e-3
    torch.testing.assert_close(encoder.encode_texts(["a red <|EndOfText|> house"])[0], red_house)


def test_only_texts_that_may_change_are_marked() -> None:
    assert all(is_plain(text) == (cleaning_mark([text, "a car"]) == "") for text in TEXTS)
    for text in filter(is_plain, TEXTS):
        assert clean_text(text) == " ".join(text.lower().split())
    assert not is_plain("a dog’s life")
    assert not is_plain("R&amp;B")
