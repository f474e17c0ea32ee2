"""What evaluate and align share: opening what is scored, and keeping the numbers."""

from __future__ import annotations

import json as jsons
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacl.cli.console import progress, say
from pacl.cli.options import ModelOptions

if TYPE_CHECKING:
    from pacl.api import Model
    from pacl.datasets.segmentation.dataset import BenchmarkDataset
    from pacl.datasets.segmentation.folder import FolderDataset

STORYBOOK_DIR = Path("runs/storybook")
N_SCENES = 300
MEANINGLESS = (
    "these numbers mean nothing yet: the backbone is the small Storybook model, which has seen "
    "drawn scenes only, and these are other pictures\n"
    "  use a CLIP that has seen photographs: --model openai/clip-vit-base-patch16"
)


def open_benchmark(name: str, labels: str | None) -> FolderDataset:
    """The folder of that name; storybook is drawn where it is not there yet."""
    from pacl.datasets.segmentation.folder import FolderDataset
    from pacl.datasets.storybook import draw_storybook

    if name != "storybook":
        return FolderDataset(name, labels=labels)
    with progress("draw storybook") as show:
        folders = draw_storybook(
            STORYBOOK_DIR,
            counts={"test": N_SCENES},
            on_progress=lambda done, total: show(done, total, ""),
        )
    return FolderDataset(folders["test"], labels=labels)


def describe_scored(benchmark: str, loading: ModelOptions, model: Model) -> dict[str, Any]:
    """What was scored, for the JSON file."""
    return {
        "benchmark": benchmark,
        "model": loading.model,
        "embedder": loading.embedder,
        "description": model.describe(),
        "pacl": metadata.version("pacl"),
    }


def save_scores(
    content: dict[str, Any], output: Path, model: Model, dataset: FolderDataset | BenchmarkDataset
) -> Path:
    """Keep the numbers, and say so where they mean nothing; gives the file."""
    from pacl.api import is_on_storybook
    from pacl.datasets.segmentation import NAMES
    from pacl.runtime.files import write_atomically

    benchmark = content["benchmark"]
    name = benchmark if benchmark in NAMES else dataset.root.resolve().name
    words = (name, content["model"], content["embedder"] or "")
    stem = "_".join(re.sub(r"[^\w.]+", "-", word).strip("-.") for word in words if word)
    path = output / f"{stem}.json"
    write_atomically(path, (jsons.dumps(content, indent=1) + "\n").encode())
    say(f"wrote {path}")
    is_drawn = (dataset.root / "storybook.json").is_file()
    if is_on_storybook(model) and not is_drawn:
        say(f"note: {MEANINGLESS}")
    return path
