"""Training-free methods on every kind of tower: they run where they make sense, or say why not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.nn import functional as F

from checkpoints import randomise, write_clip, write_preprocessing
from foreign_towers import N_TOKENS, write_resnet, write_vit, write_word_tokenizer
from pacl.api import load
from pacl.cli import main
from pacl.errors import InputError
from pacl.evaluation.run import as_baseline
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers import load_text_tower, load_vision_tower
from pacl.modeling.towers.whole_walks import CHANNELS

pytestmark = pytest.mark.slow

DENSE = ("maskclip", "sclip", "clearclip", "naclip")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image with its mask."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    for name, image in (("images", Image.fromarray(pixels)), ("masks", Image.new("L", (90, 60)))):
        Path("street", name).mkdir(parents=True)
        image.save(f"street/{name}/0.png")


def evaluate(*more: str) -> int:
    return main(["evaluate", "street", "--labels", "cat,sky", "--output", "out", *more])


def write_metaclip2(directory: Path) -> Path:
    common = {"num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 48}
    text = {"hidden_size": 30, "vocab_size": N_TOKENS, "max_position_embeddings": 16}
    config = transformers.MetaClip2Config(
        vision_config={**common, "hidden_size": 24, "image_size": 32, "patch_size": 8},
        text_config={**common, **text, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0},
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


@pytest.mark.parametrize("family", ["clip", "metaclip2", "tipsv2"])
def test_they_run_where_patches_have_a_place_among_texts(family: str) -> None:
    if family == "tipsv2":
        write_word_tokenizer(write_vit("Tipsv2Model", Path(family)))
    else:
        (write_clip if family == "clip" else write_metaclip2)(Path(family))
    kinds = ("clip", *DENSE, *(() if family == "tipsv2" else ("scclip",)))
    model, images = load(family, device="cpu"), torch.rand(1, 3, 56, 84)
    baselines = [as_baseline(model, kind, engine="torch") for kind in kinds]
    assert len({each.fingerprint for each in baselines}) == len(kinds)
    embeds = [each.patch_embeds(images).flatten() for each in baselines]
    assert len({tuple(each.tolist()) for each in embeds}) == len(kinds)
    assert evaluate("--model", family, "--baseline", "naclip") == 0
    [path] = Path("out").glob("*.json")
    content = json.loads(path.read_text())
    assert (content["method"], content["has_embedder"]) == ("NACLIP", False)


def test_tipsv2_patches_are_compared_with_its_texts_as_they_are() -> None:
    directory = write_vit("Tipsv2Model", Path("tipsv2"))
    write_word_tokenizer(directory)
    library = transformers.Tipsv2Model.from_pretrained(directory).eval()
    images = torch.rand(1, 3, 56, 84)
    with torch.no_grad():
        output = library.vision_model(images)
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state[:, 0])
    model = as_baseline(load(directory, device="cpu"), "clip", engine="torch")
    expected = F.normalize(output.last_hidden_state[:, 2:], dim=-1)  # beside CLS, a register
    found = F.normalize(model.patch_embeds(images).flatten(1, 2), dim=-1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "why"), [("SiglipModel", "pooled embedding"), ("Dinov2Model", "without texts")]
)
def test_towers_without_a_place_among_texts_say_why(
    name: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_word_tokenizer(write_vit(name, Path("tower")))
    assert evaluate("--model", "tower", "--baseline", "naclip") == 2
    error = capsys.readouterr().err
    assert why in error
    assert "pacl train --data PAIRS --vision tower" in error


@pytest.mark.parametrize("name", ["SiglipModel", "Dinov2WithRegistersModel", "resnet"])
def test_trained_pairs_have_no_baseline(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The embedder was trained on the tower's own tokens; other tokens have no way to the texts."""
    tower = Path("tower")
    is_pair = name == "SiglipModel"
    vision = load_vision_tower(write_resnet(tower) if name == "resnet" else write_vit(name, tower))
    if is_pair:
        write_word_tokenizer(tower)
    text = load_text_tower(tower if is_pair else write_clip(Path("clip")))
    embedder = VisionEmbedder(vision.width, text.text_width)
    pacl = Pacl(vision=vision, text=text, embedder=embedder, token_kind=vision.token_kinds[0])
    pacl.save_pretrained("run")
    assert evaluate("--model", "run") == 0
    capsys.readouterr()
    for kind in ("maskclip", "naclip"):
        assert evaluate("--model", "run", "--baseline", kind) == 2
        error = capsys.readouterr().err
        assert "have no joint space of their own" in error
        assert "use the trained embedder" in error
        assert ("pooled embedding" in error) == is_pair


def test_methods_of_clips_on_another_model() -> None:
    write_word_tokenizer(write_vit("Tipsv2Model", Path("tipsv2")))
    model, proxy = load("tipsv2", device="cpu"), load_vision_tower("tipsv2")
    for kind, why in (("scclip", "blocks of a CLIP"), ("proxyclip", "values of a CLIP")):
        with pytest.raises(InputError, match=f"no baseline {kind}") as caught:
            as_baseline(model, kind, engine="torch", proxy=proxy if kind == "proxyclip" else None)
        assert why in str(caught.value.why)


def test_rfclip_is_for_openais_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LAION's ViT-B is as wide, but its channels are others; its activation tells it apart."""
    monkeypatch.setitem(CHANNELS, 24, (1, 2))
    kinds = [
        load(write_clip(tmp_path / act, hidden_act=act), device="cpu").pacl.encoder.token_kinds
        for act in ("quick_gelu", "gelu")
    ]
    assert ["rfclip" in each for each in kinds] == [True, False]
