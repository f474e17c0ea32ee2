"""The code blocks of the documentation's pages, and a place where their commands find all files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pacl.datasets.storybook import LABELS, draw_scene

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
N_PHOTOS = 24
LANGUAGES = ("", "bash", "sh", "python")
"""Of blocks that somebody might paste; others, such as text and json, show files or output."""

_BLOCK = re.compile(r"^(?:<!-- not run(.*?)-->\n)?```(\w*)\n(.*?)^```$", re.S | re.M)


@dataclass(frozen=True)
class Block:
    """A block of code, and why it is not run, where it is not."""

    language: str
    code: str
    reason: str | None

    def commands(self) -> list[str]:
        """Its lines, joined where they are split, without blank ones."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip()]


def read_blocks(page: Path) -> list[Block]:
    """The blocks of a page that are code."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [
        Block(language, code, reason.strip(" :") or None)
        for reason, language, code in found
        if language in LANGUAGES
    ]


def furnish(directory: Path) -> None:
    """Put there what the pages name: photos/ with captions.csv, scene.png, street.jpg, labels."""
    photos = directory / "photos"
    photos.mkdir()
    lines = ["file_name,caption"]
    for k in range(N_PHOTOS):
        scene = draw_scene("train", k)
        Image.fromarray(scene.image).save(photos / f"{k:02}.png")
        names = " and ".join(f"a {LABELS[i]}" for i in np.unique(scene.mask) if i < len(LABELS))
        lines.append(f"{k:02}.png,{names}")
    (photos / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    elsewhere = [lines[0], *(f"photos/{line}" for line in lines[1:])]
    (directory / "captions.csv").write_text("\n".join(elsewhere) + "\n", encoding="utf-8")
    scene = Image.fromarray(draw_scene("test", 3).image)
    scene.save(directory / "scene.png")
    scene.save(directory / "street.jpg")
    ontology = {"plants": ["grass", "pine tree"], "sky": ["sky"]}
    (directory / "ontology.json").write_text(json.dumps(ontology), encoding="utf-8")
