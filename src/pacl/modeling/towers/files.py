"""A CLIP checkpoint on disk: find its files, read and write its weights, identify it.

Only safetensors are read: a pickle can run any code when it is opened.
"""

# pyright: reportUnknownVariableType=false

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pacl.errors import EnvironmentProblem, InputError
from pacl.runtime.files import replacing, write_atomically

CONFIG = "config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
PREPROCESSING = ("preprocessor_config.json", "processor_config.json")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
SIDE_FILES = (CONFIG, *PREPROCESSING, *TOKENIZER)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
NOT_WEIGHTS = ("position_ids",)  # buffers that older versions of transformers stored


def find_checkpoint(source: str | Path) -> Path:
    """Give the directory with a checkpoint's files: a local one as it is, a hub id downloaded.

    Raises:
        InputError: Neither a directory with config.json or open_clip_config.json nor a hub id
            that exists.
        EnvironmentProblem: A hub id, and the hub cannot be reached.
    """
    directory = Path(source)
    if directory.is_dir():
        if not (directory / CONFIG).is_file() and not is_open_clip(directory):
            raise InputError(f"{source} holds no {CONFIG}", why=found_files(directory))
        return directory
    return download_checkpoint(str(source))


def is_open_clip(directory: Path) -> bool:
    """Whether a directory is a checkpoint in open_clip's format, and not in transformers' too.

    A timm model's config.json, which may lie beside it, names no model of transformers.
    """
    if not (directory / OPEN_CLIP_CONFIG).is_file():
        return False
    path = directory / CONFIG
    return not path.is_file() or "model_type" not in read_json(path)


def read_config(directory: Path) -> dict[str, Any]:
    """Read config.json.

    Raises:
        InputError: It is missing or no JSON object.
    """
    return read_json(directory / CONFIG)


def read_preprocessing(directory: Path) -> dict[str, Any]:
    """Read the values of preprocessor_config.json, or of its place in processor_config.json."""
    path = directory / PREPROCESSING[0]
    if path.is_file():
        return read_json(path)
    path = directory / PREPROCESSING[1]
    if path.is_file():
        return read_json(path).get("image_processor", {})
    raise InputError(f"{directory} holds no {PREPROCESSING[0]}", why=found_files(directory))


def require_tokenizer(directory: Path) -> None:
    """Raise InputError where the tokenizer's files are missing: its words would mean nothing."""
    has = {name for name in TOKENIZER if (directory / name).is_file()}
    if "tokenizer.json" not in has and not {"vocab.json", "merges.txt"} <= has:
        wanted = "looked for tokenizer.json, or vocab.json and merges.txt"
        raise InputError(
            f"{directory} holds no tokenizer", why=f"{wanted}\n{found_files(directory)}"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: There is no such file, or it holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist", why=found_files(path.parent)) from None
    except ValueError as error:  # bad JSON or bad UTF-8
        raise InputError(f"{path} is not valid JSON", why=str(error)) from None
    if not isinstance(values, dict):
        raise InputError(f"{path} does not hold a JSON object")
    return values


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Read a CLIP's weights, one file or several, on the CPU.

    Raises:
        InputError: No safetensors (pickles are refused), or a file is truncated or damaged.
    """
    weights: dict[str, Tensor] = {}
    for path in _weight_files(directory):
        weights |= read_safetensors(path)
    return {name: value for name, value in weights.items() if not name.endswith(NOT_WEIGHTS)}


def fill_weights(module: nn.Module, weights: dict[str, Tensor], directory: Path) -> None:
    """Copy weights into a module that must have exactly these, converting their type.

    Raises:
        InputError: Names or shapes differ.
    """
    expected = set(module.state_dict())
    missing, unknown = sorted(expected - set(weights)), sorted(set(weights) - expected)
    if missing or unknown:
        raise InputError(
            f"the weights in {directory} are not those that its configuration describes",
            why=f"missing {len(missing)}: {_listing(missing, 3)}\n"
            f"unknown {len(unknown)}: {_listing(unknown, 3)}",
        )
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"the weights in {directory} do not fit its configuration", why=str(error)
        ) from None


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read one safetensors file.

    Raises:
        InputError: It is missing, truncated or of another format.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist", why=found_files(path.parent)) from None
    except SafetensorError as error:
        raise InputError(
            f"{path} cannot be read: truncated, or not a safetensors file",
            why=f"{error}; the file has {path.stat().st_size:,} bytes",
            fix="copy or download the file again",
        ) from None


def write_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write one safetensors file, whole or not at all.

    Raises:
        EnvironmentProblem: The disk is full or cannot be written; what was there is kept.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(tensors, metadata={"format": "pt"}))


def fingerprint(weights: dict[str, Tensor]) -> str:
    """Hash the names, types, shapes and values of the weights: 16 hexadecimal digits of SHA-256.

    Equal for the same weights in one file or in several, in memory or on disk.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def stored_fingerprint(weights: dict[str, Tensor]) -> str:
    """Hash the bytes of the safetensors file that these weights make: 16 hexadecimal digits."""
    return hashlib.sha256(save(weights)).hexdigest()[:16]


def copy_side_files(source: Path, target: Path) -> None:
    """Copy configuration, tokenizer and preprocessing, as they are, to another directory."""
    for name in SIDE_FILES:
        if (source / name).is_file() and (source / name).resolve() != (target / name).resolve():
            with replacing(target / name) as path:
                shutil.copyfile(source / name, path)


def found_files(directory: Path) -> str:
    """Say what a directory holds, for the second line of an error."""
    if not directory.is_dir():
        return f"{directory} is not a directory"
    return "found there: " + (_listing(path.name for path in directory.iterdir()) or "nothing")


def download_checkpoint(hub_id: str) -> Path:
    """Download a checkpoint's files from the Hugging Face hub into its ordinary cache.

    Some old models, OpenAI's among them, have pickles only on their main branch; the safetensors
    are then taken from the pull request of the hub's own conversion robot.

    Raises:
        InputError: No such model.
        EnvironmentProblem: The hub cannot be reached.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    wanted = [
        *SIDE_FILES,
        OPEN_CLIP_CONFIG,
        "model*.safetensors",
        "*embedder.safetensors",
        "words.txt",
        WEIGHTS_INDEX,
        "tower.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
    ]
    try:
        directory = Path(snapshot_download(hub_id, allow_patterns=wanted))
        if is_open_clip(directory):
            snapshot_download(hub_id, allow_patterns=["open_clip*.safetensors"])
        if any(directory.glob("*.safetensors")):
            return directory
        for earlier in directory.parent.glob("*/*.safetensors"):
            return earlier.parent
        pulls = HfApi().get_repo_discussions(
            hub_id, author="SFconvertbot", discussion_status="open"
        )
        for pull in pulls:
            revision = pull.git_reference
            return Path(snapshot_download(hub_id, allow_patterns=wanted, revision=revision))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise InputError(
            f"{hub_id} is neither a directory here nor a model on the hub", why=str(error)
        ) from None
    except Exception as error:  # the hub's client lets many kinds of network error through
        raise EnvironmentProblem(
            f"{hub_id} is not a directory here, and could not be downloaded",
            why=str(error),
            fix="give a local CLIP directory, or storybook, the model that comes with pacl",
        ) from error
    raise InputError(
        f"{hub_id} has no safetensors on the hub, and pickles are refused",
        why="opening a pickle can run any code",
        fix="where you trust it, convert it once: AutoModel.from_pretrained(...)"
        ".save_pretrained(...) of transformers writes " + WEIGHTS,
    )


def _listing(names: Iterable[str], most: int = 8) -> str:
    names = sorted(names)
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")


def _weight_files(directory: Path) -> list[Path]:
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if (directory / WEIGHTS_INDEX).is_file():
        shards = read_json(directory / WEIGHTS_INDEX).get("weight_map", {}).values()
        return [directory / name for name in sorted(set(shards))]
    pickles = [path.name for pattern in PICKLES for path in directory.glob(pattern)]
    if pickles:
        raise InputError(
            f"{directory} holds its weights as a pickle only ({_listing(pickles)}): refused",
            why="opening a pickle can run any code; looked for: " + WEIGHTS,
            fix="where you trust the file, convert it once: AutoModel.from_pretrained(...)"
            ".save_pretrained(...) of transformers writes " + WEIGHTS,
        )
    raise InputError(f"{directory} holds no {WEIGHTS}", why=found_files(directory))
