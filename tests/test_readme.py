"""Every command that the README and the recipes show is one that the command line understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pacl.cli import COMMANDS
from pacl.cli.parse import Help, parse_options

ROOT = Path(__file__).parents[1]


def shown_commands() -> list[str]:
    """Lines that begin with pacl, in README.md and in the recipes, joined where they are split."""
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    recipes = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("recipes/**/*.sh"))]
    text = "\n".join([*blocks, *recipes]).replace("\\\n", " ")
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
