"""The recipe of Storybook's table, on three pictures and a tiny CLIP."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from checkpoints import write_clip
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers.hf import HfClip


@pytest.fixture(scope="module")
def recipe(repository: Path) -> Iterator[ModuleType]:
    path = repository / "recipes" / "compare_storybook.py"
    spec = importlib.util.spec_from_file_location("compare_storybook", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def save_embedder(clip: Path, directory: Path, *, seed: int) -> None:
    encoder = HfClip.from_pretrained(clip)
    torch.manual_seed(seed)
    embedder = VisionEmbedder(encoder.width, encoder.joint_width)
    Pacl(encoder=encoder, embedder=embedder).save_pretrained(directory)


@pytest.mark.slow
def test_one_table_of_all_methods(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recipe.PRESETS, "sclip", recipe.PRESETS["paper"])  # a quick second one
    clip = write_clip(tmp_path / "clip")
    save_embedder(clip, clip / "pacl", seed=0)
    save_embedder(clip, tmp_path / "paper" / "last", seed=1)
    docs = tmp_path / "benchmarks.md"
    docs.write_text(f"before\n{recipe.BEGIN}\nold\n{recipe.END}\nafter\n")
    line = [str(tmp_path / "out"), "--model", str(clip), "--paper-run", str(tmp_path / "paper"),
            "--n-test", "2", "--n-validation", "2", "--docs", str(docs)]  # fmt: skip
    recipe.main(line)
    text = docs.read_text()
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines() if "|" in row
    ]
    assert rows[0] == ["method", "paper", "paper + PAMR", "sclip", "sclip + PAMR"]
    names = ["CLIP", "MaskCLIP", "SCLIP", "ClearCLIP", "NACLIP", "PACL (paper)", "PACL"]
    assert [row[0] for row in rows[2:]] == [*names, "supervised linear probe"]
    assert all(0 <= float(cell) <= 1 for row in rows[2:] for cell in row[1:])
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "`python recipes/compare_storybook.py " in text

    kept = tmp_path / "out" / "paper_CLIP.json"  # a finished cell is not computed again
    content = json.loads(kept.read_text())
    content["rows"]["without PAMR"]["miou"] = 0.987
    kept.write_text(json.dumps(content))
    recipe.main(line)
    assert "| CLIP | 0.987 |" in docs.read_text()


def test_a_document_without_marks_is_left_alone(recipe: ModuleType, tmp_path: Path) -> None:
    docs = tmp_path / "benchmarks.md"
    docs.write_text("no marks")
    with pytest.raises(SystemExit, match="lacks the marks"):
        recipe.insert("table", docs)
    assert docs.read_text() == "no marks"
