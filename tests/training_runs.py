"""A few captioned pictures to train on, and reading back what a run wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from pacl.training.config import TrainConfig

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 60, 210)}
THINGS = ("house", "boat", "tree", "car")


def write_pairs(directory: Path, *, n_images: int = 12) -> Path:
    """Striped pictures with two captions each; the second also names what the next one shows."""
    rng = np.random.default_rng(0)
    (directory / "images").mkdir(parents=True)
    lines = ["file_name,caption"]
    for i, (colour, thing, other) in enumerate(shown(n_images)):
        pixels = np.full((32, 32, 3), COLOURS[colour]) + rng.integers(-20, 20, (32, 32, 3))
        pixels[:, :: 2 + i % 4] = 255
        name = f"images/{i}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(directory / name)
        lines += [f"{name},a {colour} {thing}", f"{name},a {thing} near a {other}"]
    (directory / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def shown(n_images: int) -> list[tuple[str, str, str]]:
    """Colour, thing, and the other thing that the second caption names, of each picture."""
    return [(list(COLOURS)[i % 3], THINGS[i % 4], THINGS[(i + 1) % 4]) for i in range(n_images)]


def read_metrics(config: TrainConfig) -> list[dict[str, float]]:
    lines = (config.output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
