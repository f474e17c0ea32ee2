"""The sheet of photographs: its panels, the truth in nine words, and nothing of the photographs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from pacl.api import Model
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.inference.config import SegmentConfig


@pytest.fixture(scope="module")
def recipe(repository: Path) -> ModuleType:
    path = repository / "recipes" / "photographs_sheet.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def streets(tmp_path: Path) -> FolderDataset:
    folder = tmp_path / "camvid"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    Image.new("RGB", (40, 30), (200, 30, 30)).save(folder / "images" / "a.png")
    mask = np.repeat(np.arange(12, dtype=np.uint8), 100).reshape(30, 40)
    Image.fromarray(mask).save(folder / "masks" / "a.png")
    return FolderDataset(folder)


def test_the_truth_counts_nine_words(recipe: ModuleType, streets: FolderDataset) -> None:
    truth = recipe.read_truth(streets, streets.items[0]).ravel()[::100]
    words = ["none", *recipe.WORDS.values()]
    assert [words[number] for number in truth] == (
        "sky building none road sidewalk tree none fence car person cyclist none".split()
    )


def test_photographs_are_left_out_on_request(
    recipe: ModuleType, streets: FolderDataset, model: Model
) -> None:
    config = SegmentConfig(short_side_px=32)
    rows = {}
    for has_photograph in (True, False):
        rows[has_photograph] = recipe.draw_row(
            model,
            streets,
            streets.items[0],
            ["a red car"],
            config=config,
            has_photograph=has_photograph,
        )
    titles = ["photograph", "truth", "prediction", "“a red car”"]
    assert [title for title, _ in rows[True]] == titles
    assert [title for title, _ in rows[False]] == titles[1:]
    predicted = np.asarray(rows[False][1][1])
    colours = {tuple(pixel) for pixel in predicted.reshape(-1, 3)}
    palette = {tuple(c) for c in recipe.class_colours([*recipe.WORDS.values()]).tolist()}
    dark = {tuple(round(part * 0.7) for part in colour) for colour in palette}
    assert colours <= palette | dark  # classes and their borders, no trace of the photograph
