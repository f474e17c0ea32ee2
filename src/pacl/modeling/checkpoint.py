"""A PACL checkpoint on disk: config.json, which names the towers, and the trained weights.

Version 1 is an embedder on a CLIP's patches (`encoder`); version 2 names two towers (`vision`,
`text`) and has an embedder for one of them or for both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pacl.errors import InputError
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.names import CONFIG
from pacl.modeling.towers import TextTower, VisionTower, files
from pacl.runtime.files import write_atomically

WEIGHTS = "embedder.safetensors"
TEXT_WEIGHTS = "text_embedder.safetensors"
WORDS = "words.txt"
FORMAT = "pacl"
VERSIONS = (1, 2)


def is_pacl(source: str | Path) -> bool:
    """Whether a directory holds a PACL checkpoint."""
    path = Path(source) / CONFIG
    return path.is_file() and files.read_json(path).get("format") == FORMAT


def write(
    directory: str | Path,
    version: int,
    facts: dict[str, Any],
    words: Sequence[str],
    **weights: Any,
) -> None:
    """Write a checkpoint, each file whole or not at all.

    Args:
        directory: Made where it does not exist.
        version: Version of the facts' format.
        facts: What config.json holds.
        words: What words.txt holds, one a line; none: there is no such file.
        weights: The embedders by the stem of their file; None: there is none.

    Raises:
        EnvironmentProblem: The disk is full or cannot be written.
    """
    target = Path(directory)
    config = {"format": FORMAT, "version": version, **facts}
    for stem, embedder in weights.items():
        if embedder is not None:
            files.write_safetensors(embedder.state_dict(), target / f"{stem}.safetensors")
    if words:
        write_atomically(target / WORDS, "".join(f"{word}\n" for word in words).encode())
    write_atomically(target / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def read_words(directory: str | Path) -> tuple[str, ...]:
    """Read the nouns of the training captions; none where no file holds them."""
    path = Path(directory) / WORDS
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()


def describe_embedder(embedder: VisionEmbedder | None) -> dict[str, int] | None:
    """Return the sizes of an embedder, as config.json holds them."""
    if embedder is None:
        return None
    return {
        "width": embedder.width,
        "joint_width": embedder.joint_width,
        "hidden": embedder.hidden,
    }


def read_config(directory: str | Path) -> dict[str, Any]:
    """Read a checkpoint's config.json, in the form of version 2.

    Raises:
        InputError: It is missing, of another format, or of another version of pacl.
    """
    config = files.read_json(Path(directory) / CONFIG)
    if config.get("format") != FORMAT:
        raise InputError(
            f"{directory} is not a PACL checkpoint",
            why=f"its {CONFIG} has format {config.get('format')!r}, wanted {FORMAT!r}",
        )
    if config.get("version") not in VERSIONS:
        raise InputError(
            f"{directory} was written by another version of pacl",
            why=f"checkpoint version {config.get('version')!r}, this pacl reads "
            f"{' and '.join(map(str, VERSIONS))}",
        )
    if config["version"] == 1:
        sizes = {name: config[name] for name in ("width", "joint_width", "hidden")}
        config |= {"embedder": sizes, "text_embedder": None}
        for tower in ("vision", "text"):
            config[tower] = config["encoder"]
            config[f"{tower}_fingerprint"] = config["encoder_fingerprint"]
    return config


def read_embedder(
    sizes: dict[str, int] | None, directory: str | Path, name: str
) -> VisionEmbedder | None:
    """Read the trained weights of one side; None where it has none.

    Args:
        sizes: As `describe_embedder` returned them.
        directory: The checkpoint.
        name: WEIGHTS or TEXT_WEIGHTS.

    Raises:
        InputError: The file is missing, damaged, or not what config.json describes.
    """
    if sizes is None:
        return None
    embedder = VisionEmbedder(sizes["width"], sizes["joint_width"], hidden=sizes["hidden"])
    files.fill_weights(embedder, files.read_safetensors(Path(directory) / name), Path(directory))
    return embedder


def check_towers(
    config: dict[str, Any], vision: VisionTower, text: TextTower, directory: str | Path
) -> None:
    """Refuse towers other than those that the embedder was trained on.

    Raises:
        InputError: Widths or fingerprints differ.
    """
    kind = "CLIP" if config["version"] == 1 else "tower"
    expected_widths = _widths(config)
    for name, tower, width in (
        ("vision", vision, vision.width),
        ("text", text, text.text_width),
    ):
        expected = expected_widths[name]
        if expected is not None and width != expected:
            raise InputError(
                f"the embedder in {directory} does not fit {tower.source}",
                why=f"it is made for {name} embeddings of width {expected}, the {kind} has {width}",
                fix=f"use it with {config[name]}",
            )
        if tower.fingerprint != config[f"{name}_fingerprint"]:
            raise InputError(
                f"the embedder in {directory} was trained on another {kind} than {tower.source}",
                why=f"fingerprint of the weights: {config[f'{name}_fingerprint']} in the "
                f"checkpoint, {tower.fingerprint} here",
                fix=f"use it with {config[name]}, or train a new embedder",
            )


def _widths(config: dict[str, Any]) -> dict[str, int | None]:
    """Return the width that the embedders expect of each tower, as far as they say it."""
    of_patches, of_texts = config["embedder"], config["text_embedder"]
    return {
        "vision": of_patches["width"] if of_patches else of_texts["joint_width"],
        "text": of_texts["width"] if of_texts else of_patches["joint_width"],
    }
