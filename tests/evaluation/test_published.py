"""What the recipes of published rows say is what `pacl.evaluation.published` holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pacl.evaluation.published import PUBLISHED

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("benchmark_*.sh"))


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 7


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_figures_are_quoted_with_their_source(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "NOT RUN HERE" in text
    quotes = text.partition("set -euo")[0].split("# Published: ")[1:]
    assert quotes
    for quote in quotes:
        method, backbone, _ = quote.splitlines()[0].split(", ")
        source, protocol = (re.findall(rf"{key}: (.+)", quote)[0] for key in ("source", "protocol"))
        figures = re.findall(r"([\w-]+\d*) (\d+(?:\.\d+)?)(?:,|\n|$)", quote.split("protocol")[1])
        found = {name: float(figure) for name, figure in figures}
        rows = [row for row in PUBLISHED if (row.method, row.backbone) == (method, backbone)]
        assert [found, source, protocol] in [
            [dict(row.miou), row.source, row.protocol] for row in rows
        ]
