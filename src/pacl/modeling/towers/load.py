"""Which tower a checkpoint is: its own files say it."""

from __future__ import annotations

from pathlib import Path

import torch

from pacl.errors import InputError
from pacl.modeling.names import CONFIG, find_source
from pacl.modeling.towers import files, open_clip
from pacl.modeling.towers.conv import ConvTower
from pacl.modeling.towers.families import FAMILIES, PAIRS, refuse_naflex
from pacl.modeling.towers.hf import CLIPS, HfClip
from pacl.modeling.towers.protocols import FrozenClip, TextTower, VisionTower
from pacl.modeling.towers.static_text import TOKENIZER, StaticText
from pacl.modeling.towers.text import MODULES, TEXT_FAMILIES, TransformerText
from pacl.modeling.towers.timm_clip import OpenClipText, TimmTower
from pacl.modeling.towers.torchvision_guard import guard_against_torchvision
from pacl.modeling.towers.vit import VitTower


def load_clip(source: str | Path, *, device: str | torch.device = "cpu") -> FrozenClip:
    """Load a CLIP by name; it keeps that name as its source.

    Raises:
        InputError: Nothing of that name, or no CLIP.
        EnvironmentProblem: The hub cannot be reached.
    """
    clip = HfClip.from_pretrained(find_source(source), device=device)
    clip.source = str(source)
    return clip


def load_vision_tower(source: str | Path, *, device: str | torch.device = "cpu") -> VisionTower:
    """Load any frozen vision tower that pacl knows, by hub id or local directory.

    A CLIP or MetaCLIP 2; a vision transformer of a family in `families.py` (alone, or the vision
    half of a SigLIP or TIPSv2); a convolutional network in transformers' format; the image tower
    of a CLIP in open_clip's format.

    Raises:
        InputError: Nothing of that name, or no such tower.
        EnvironmentProblem: The hub cannot be reached.
    """
    directory = files.find_checkpoint(find_source(source))
    if _is_clip(directory):
        return load_clip(source, device=device)
    guard_against_torchvision()
    if files.is_open_clip(directory):
        kind = TimmTower
    else:
        model_type = files.read_config(directory).get("model_type")
        refuse_naflex(model_type, source)
        kind = VitTower if model_type in {*FAMILIES, *PAIRS} else ConvTower
    tower = kind.from_pretrained(directory, device=device)
    tower.source = str(source)
    return tower


def load_text_tower(source: str | Path, *, device: str | torch.device = "cpu") -> TextTower:
    """Load any frozen text tower that pacl knows, by hub id or local directory.

    A CLIP or MetaCLIP 2; the text half of a SigLIP or TIPSv2, or of a CLIP in open_clip's format;
    a sentence encoder in the layout of sentence-transformers; static word vectors.

    Raises:
        InputError: Nothing of that name, or no such tower.
        EnvironmentProblem: The hub cannot be reached.
    """
    found = Path(find_source(source))
    if not found.is_dir():
        found = files.download_checkpoint(str(source))
    if _is_clip(found):
        return load_clip(source, device=device)
    guard_against_torchvision()
    values = files.read_config(found) if (found / CONFIG).is_file() else {}
    refuse_naflex(values.get("model_type"), source)
    is_encoder = values.get("model_type") in {*TEXT_FAMILIES, *PAIRS}
    if files.is_open_clip(found):
        tower: OpenClipText | StaticText | TransformerText = OpenClipText.from_pretrained(
            found, device=device
        )
    elif is_encoder or (found / MODULES).is_file():
        tower = TransformerText.from_pretrained(found, device=device)
    elif (found / TOKENIZER).is_file():
        tower = StaticText.from_pretrained(found, device=device)
    else:
        raise InputError(
            f"{source} is no text tower",
            why=f"looked for a CLIP, a known text encoder, or word vectors with {TOKENIZER}\n"
            f"{files.found_files(found)}",
        )
    tower.source = str(source)
    return tower


def load_pair(
    vision: str | Path, text: str | Path, *, device: str | torch.device = "cpu"
) -> tuple[VisionTower, TextTower]:
    """Load both towers; a CLIP that is named twice is loaded once."""
    if str(vision) == str(text) and _is_clip(files.find_checkpoint(find_source(vision))):
        clip = load_clip(vision, device=device)
        return clip, clip
    return load_vision_tower(vision, device=device), load_text_tower(text, device=device)


def _is_clip(directory: Path) -> bool:
    """Whether `HfClip` reads a directory: both towers, with CLIP's modules."""
    if files.is_open_clip(directory):
        return not open_clip.is_timm(directory)
    if not (directory / CONFIG).is_file():
        return False
    return files.read_config(directory).get("model_type") in CLIPS
