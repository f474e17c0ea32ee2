"""What the README shows holds: its Python runs, its commands and the recipes' are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from pacl.cli import COMMANDS
from pacl.cli.options import Help, parse_options
from pacl.datasets.storybook import draw_scene

ROOT = Path(__file__).parents[1]


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of one language; "" is for those that name none."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.S | re.M)
    return [text for name, text in found if name == language]


def shown_commands() -> list[str]:
    """Lines that begin with pacl, in README.md and in the recipes, joined where they are split."""
    recipes = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("recipes/**/*.sh"))]
    labels = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
    text = "\n".join([*blocks(""), labels, *recipes]).replace("\\\n", " ")
    lines = [line.strip().replace("$PACL ", "pacl ", 1) for line in text.splitlines()]
    lines = [re.sub(r"^torchrun .* -m pacl ", "pacl ", line) for line in lines]
    lines = [re.sub(r"\$\{?(STEPS|BATCH)\}?", "1", line) for line in lines]
    return [line for line in lines if line.startswith("pacl ")]


def test_readme_and_recipes_show_commands():
    assert len(shown_commands()) >= 8


@pytest.mark.parametrize("line", shown_commands())
def test_shown_command_is_understood(line):
    words = shlex.split(line, comments=True)[1:]
    name = next(name for name in COMMANDS if words[: len(name.split())] == name.split())
    options = parse_options(
        COMMANDS[name].options,
        name=name,
        words=words[len(name.split()) :],
        examples=COMMANDS[name].examples,
    )
    assert not isinstance(options, Help)


@pytest.mark.slow
def test_python_example_runs(tmp_path, monkeypatch, storybook_model, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(draw_scene("test", 0).image).save("scene.png")
    [code] = blocks("python")
    exec(code, {})
    assert "(128, 128)" in capsys.readouterr().out
    assert {path.suffix for path in Path("out").iterdir()} == {".png", ".json"}


def test_tree_names_what_exists():
    [tree] = [text for text in blocks("text") if text.startswith("src/pacl/")]
    source = ROOT / "src" / "pacl"
    shown = set(re.findall(r"^  (\w+)/", tree, re.M)) | {"data"}
    assert shown == {path.parent.name for path in source.glob("*/__init__.py")}
    for name in re.findall(r"[\w/]+\.(?:py|csv)\b", tree):
        assert [*source.rglob(name), *(ROOT / "tests").rglob(name)], name


def test_files_that_the_readme_names_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)", readme):
        assert (ROOT / target).exists(), target
