"""A model by name, hub id or path: which of the layouts it is, and what that becomes."""

from __future__ import annotations

from pathlib import Path

import torch

from pacl.errors import InputError
from pacl.modeling import checkpoint, hub
from pacl.modeling.names import find_source, newest_checkpoint
from pacl.modeling.pacl import BASELINE_KIND, Pacl
from pacl.modeling.towers import files
from pacl.modeling.towers.families import FAMILIES, PAIRS
from pacl.modeling.towers.load import load_clip, load_text_tower, load_vision_tower
from pacl.modeling.towers.vit import VitTower


def load(
    source: str | Path | None = None,
    *,
    vision: str | Path | None = None,
    text: str | Path | None = None,
    device: str | torch.device | None = None,
    embedder: str | Path | None = None,
) -> Pacl:
    """Load a model by name, hub id or path.

    Args:
        source: "storybook" (comes with pacl); a CLIP, by hub id or directory, whose subfolder
            pacl/ is used where it holds an embedder; or a trained embedder, by its hub id or the
            output directory of its training run.
        vision: A vision tower, for the run that `source` or `embedder` names: the one it was
            trained on, wherever it lies now.
        text: A text tower, likewise.
        device: Device to run on; None: a GPU if there is one.
        embedder: Directory of a PACL checkpoint to put on the CLIP that `source` names, or on the
            towers.

    Returns:
        The model, in evaluation mode. A CLIP without any embedder becomes the training-free
        MaskCLIP baseline, and `describe` says so.

    Raises:
        InputError: There is no such model or device, or the embedder belongs to other towers.
        EnvironmentProblem: The hub cannot be reached.
    """
    device = _choose_device(device)
    if vision is not None or text is not None:
        run = source if embedder is None else embedder
        if run is None or (source is not None and embedder is not None):
            raise InputError(
                "two towers alone have no joint space: name one run that was trained on them",
                fix="pacl.load(run, vision=..., text=...)",
            )
        return Pacl.from_pretrained(
            find_source(run),
            vision=None if vision is None else load_vision_tower(vision, device=device),
            text=None if text is None else load_text_tower(text, device=device),
            device=device,
        )
    if source is None:
        raise InputError("no model is named", fix='name one, such as "storybook"')
    found = hub.find_checkpoint(find_source(source))
    if checkpoint.is_pacl(found):
        if embedder is not None:
            raise InputError(f"{source} has its own embedder", fix="name its CLIP, or no embedder")
        return Pacl.from_pretrained(found, device=device)
    values = files.read_config(found) if (found / files.CONFIG).is_file() else {}
    if embedder is None and values.get("model_type") in {*FAMILIES, *PAIRS}:
        return _load_untrained(source, device)
    encoder = load_clip(source, device=device)
    beside = found / "pacl"
    if embedder is None and checkpoint.is_pacl(beside):
        embedder = beside
    if embedder is not None:
        return Pacl.from_pretrained(newest_checkpoint(Path(embedder)), encoder=encoder)
    return Pacl(encoder=encoder, embedder=None, token_kind=BASELINE_KIND).eval()


def _choose_device(device: str | torch.device | None) -> str | torch.device:
    """Return the device that is asked for, if it is here; without one, a GPU or else the CPU."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"no device {str(device)!r} here",
            why=str(error).splitlines()[0],
            fix="leave out --device, or see: pacl doctor",
        ) from error
    return device


def _load_untrained(source: str | Path, device: str | torch.device) -> Pacl:
    """Load both halves of a model that is no CLIP, whose patch tokens lie in its texts' space."""
    vision = load_vision_tower(source, device=device)
    if isinstance(vision, VitTower) and vision.family.apart:
        raise InputError(
            f"{source} labels nothing without a trained embedder",
            why=vision.family.apart,
            fix=f"train one: pacl train --data PAIRS --vision {source} --text TEXTS --output RUN",
        )
    text = load_text_tower(source, device=device)
    return Pacl(vision=vision, text=text, embedder=None, token_kind=BASELINE_KIND).eval()
