"""The towers at hand: in a folder, and in the hub's cache. Nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pacl.modeling.names import CONFIG
from pacl.modeling.towers import open_clip
from pacl.modeling.towers.families import FAMILIES, NAFLEX, PAIRS
from pacl.modeling.towers.files import PREPROCESSING, is_open_clip
from pacl.modeling.towers.hf import CLIPS
from pacl.modeling.towers.static_text import TOKENIZER
from pacl.modeling.towers.text import MODULES, TEXT_FAMILIES
from pacl.modeling.towers.token_kinds import TOKEN_KINDS
from pacl.runtime.files import read_json_object

MEGABYTE = 1e6
UNKNOWN = "see its card"


def describe_towers(folder: Path) -> list[dict[str, Any]]:
    """Describe every tower below a folder and in the hub's cache.

    Args:
        folder: Searched with all its subfolders; training runs are passed over.

    Returns:
        Per tower its name for `--vision` or `--text`, family, part (vision, text or both), size
        of its weights in MB, licence of the published weights, and what it can do.
    """
    rows = [_describe(directory, name) for directory, name in _iter_checkpoints(folder)]
    return [row for row in rows if row is not None]


def _iter_checkpoints(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted({each.parent for each in folder.glob("**/*.safetensors")}):
        yield path, str(path)
    from huggingface_hub import constants

    for path in sorted(Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*")):
        name = path.parents[1].name.removeprefix("models--").replace("--", "/")
        yield path, name


def _describe(directory: Path, name: str) -> dict[str, Any] | None:
    """One row; None for a directory that holds no tower."""
    weights = list(directory.glob("*.safetensors"))
    path = directory / CONFIG
    config = read_json_object(path) if path.is_file() else {}
    model_type = str(config.get("model_type", ""))
    if not weights or config.get("format") == "pacl" or model_type in NAFLEX:
        return None
    licence, abilities = UNKNOWN, "texts"
    if is_open_clip(directory) and open_clip.is_timm(directory):
        family, part, abilities = "open_clip (timm)", "both", "features; its own stride"
    elif is_open_clip(directory) and not open_clip.is_plain(directory):
        return None
    elif model_type in CLIPS or is_open_clip(directory):
        family, part = CLIPS.get(model_type, "open_clip"), "both"
        abilities = f"{', '.join([*TOKEN_KINDS, 'scclip'])}; any stride; classify"
    elif model_type in PAIRS or model_type in FAMILIES:
        key = config.get("vision_config", {}).get("model_type", f"{model_type}_vision_model")
        described = FAMILIES.get(model_type if model_type in FAMILIES else key)
        if described is None:
            return None
        family, licence = model_type, described.licence
        part = "both" if model_type in PAIRS else "vision"
        strides = "any stride" if described.positions else "its own stride"
        abilities = f"{', '.join(described.token_kinds)}; {strides}"
    elif model_type in TEXT_FAMILIES:
        family, part = model_type, "text"
    elif (directory / MODULES).is_file():
        family, part = "sentence encoder", "text"
    elif config and any((directory / name).is_file() for name in PREPROCESSING):
        family, part, abilities = model_type, "vision", "features; its own stride"
    elif (directory / TOKENIZER).is_file():
        family, part = "word vectors", "text"
    else:
        return None
    size = round(sum(each.stat().st_size for each in weights) / MEGABYTE)
    return {
        "tower": name,
        "family": family,
        "part": part,
        "MB": size,
        "licence": licence,
        "can do": abilities,
    }
