"""A PACL checkpoint on disk: config.json, which names the towers, and the trained weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pacl.errors import InputError
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.names import CONFIG
from pacl.modeling.towers import FrozenClip, files
from pacl.runtime.files import write_atomically

WEIGHTS = "embedder.safetensors"
FORMAT = "pacl"
VERSION = 1


def is_pacl(source: str | Path) -> bool:
    """Whether a directory holds a PACL checkpoint."""
    path = Path(source) / CONFIG
    return path.is_file() and files.read_json(path).get("format") == FORMAT


def write(directory: str | Path, facts: dict[str, Any], embedder: VisionEmbedder) -> None:
    """Write a checkpoint's two files, each whole or not at all.

    Raises:
        EnvironmentProblem: The disk is full or cannot be written.
    """
    target = Path(directory)
    config = {"format": FORMAT, "version": VERSION, **facts}
    files.write_safetensors(embedder.state_dict(), target / WEIGHTS)
    write_atomically(target / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def read_config(directory: str | Path) -> dict[str, Any]:
    """Read a checkpoint's config.json.

    Raises:
        InputError: It is missing, of another format, or of another version of pacl.
    """
    config = files.read_json(Path(directory) / CONFIG)
    if config.get("format") != FORMAT:
        raise InputError(
            f"{directory} is not a PACL checkpoint",
            why=f"its {CONFIG} has format {config.get('format')!r}, wanted {FORMAT!r}",
        )
    if config.get("version") != VERSION:
        raise InputError(
            f"{directory} was written by another version of pacl",
            why=f"checkpoint version {config.get('version')!r}, this pacl reads {VERSION}",
        )
    return config


def read_embedder(config: dict[str, Any], directory: str | Path) -> VisionEmbedder:
    """Read the trained weights of a checkpoint.

    Raises:
        InputError: The file is missing, damaged, or not what config.json describes.
    """
    embedder = VisionEmbedder(config["width"], config["joint_width"], hidden=config["hidden"])
    weights = files.read_safetensors(Path(directory) / WEIGHTS)
    files.fill_weights(embedder, weights, Path(directory))
    return embedder


def check_encoder(config: dict[str, Any], encoder: FrozenClip, directory: str | Path) -> None:
    """Refuse an encoder other than the one that the embedder was trained on.

    Raises:
        InputError: Widths or fingerprints differ.
    """
    widths = config["width"], config["joint_width"]
    if (encoder.width, encoder.joint_width) != widths:
        raise InputError(
            f"the embedder in {directory} does not fit {encoder.source}",
            why=f"it maps {widths[0]} to {widths[1]}, "
            f"the CLIP has {encoder.width} and {encoder.joint_width}",
            fix=f"use it with {config['encoder']}",
        )
    if encoder.fingerprint != config["encoder_fingerprint"]:
        raise InputError(
            f"the embedder in {directory} was trained on another CLIP than {encoder.source}",
            why=f"fingerprint of the weights: {config['encoder_fingerprint']} in the checkpoint, "
            f"{encoder.fingerprint} here",
            fix=f"use it with {config['encoder']}, or train a new embedder",
        )
