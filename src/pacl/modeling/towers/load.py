"""Which tower a checkpoint is: its own files say it."""

from __future__ import annotations

from pathlib import Path

import torch

from pacl.errors import InputError
from pacl.modeling.names import CONFIG, find_source
from pacl.modeling.towers import FrozenClip, TextTower, VisionTower, files
from pacl.modeling.towers.conv import ConvTower
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.static_text import TOKENIZER, StaticText


def load_clip(source: str | Path, *, device: str | torch.device = "cpu") -> FrozenClip:
    """Load a CLIP by name; it keeps that name as its source.

    Raises:
        InputError: Nothing of that name, or no CLIP.
        EnvironmentProblem: The hub cannot be reached.
    """
    clip = HfClip.from_pretrained(find_source(source), device=device)
    clip.source = str(source)
    return clip


def load_vision(source: str | Path, *, device: str | torch.device = "cpu") -> VisionTower:
    """Load a CLIP, or a convolutional network in transformers' format.

    Raises:
        InputError: Nothing of that name, or no such tower.
        EnvironmentProblem: The hub cannot be reached.
    """
    directory = files.find_checkpoint(find_source(source))
    if _is_clip(directory):
        return load_clip(source, device=device)
    tower = ConvTower.from_pretrained(directory, device=device)
    tower.source = str(source)
    return tower


def load_text(source: str | Path, *, device: str | torch.device = "cpu") -> TextTower:
    """Load a CLIP, or static word vectors.

    Raises:
        InputError: Nothing of that name, or no such tower.
        EnvironmentProblem: The hub cannot be reached.
    """
    found = Path(find_source(source))
    if not found.is_dir():
        found = files.download_checkpoint(str(source))
    if _is_clip(found):
        return load_clip(source, device=device)
    if not (found / TOKENIZER).is_file():
        raise InputError(
            f"{source} is no text tower",
            why=f"looked for a CLIP, or word vectors with {TOKENIZER}\n{files.found_files(found)}",
        )
    tower = StaticText.from_pretrained(found, device=device)
    tower.source = str(source)
    return tower


def load_pair(
    vision: str | Path, text: str | Path, *, device: str | torch.device = "cpu"
) -> tuple[VisionTower, TextTower]:
    """Load both towers; a CLIP that is named twice is loaded once."""
    if str(vision) == str(text):
        clip = load_clip(vision, device=device)
        return clip, clip
    return load_vision(vision, device=device), load_text(text, device=device)


def _is_clip(directory: Path) -> bool:
    path = directory / CONFIG
    return path.is_file() and files.read_json(path).get("model_type") == "clip"
