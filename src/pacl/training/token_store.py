"""Patch tokens collected in a file, which an interrupted build can resume."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pacl.errors import EnvironmentProblem, InputError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

_FORMAT = "pacl-tokens-1"
_STATE, _TOKENS = "cache.json", "tokens.bin"
_SAVE_EVERY = 20  # batches between two saves of how far a cache on disk has come


@dataclass(frozen=True)
class TokenSettings:
    """What decides the tokens of a set of images: two caches with equal settings are equal."""

    encoder: str
    """Fingerprint of the frozen encoder."""
    images: str
    """Digest of the images' names, sizes and times of change."""
    n_images: int
    size_px: tuple[int, int] | None
    """Height and width that the images are scaled to; None for the encoder's preprocessing."""
    kind: str
    """Variant of the encoder's last block, "clip" for its own."""
    layer: int
    """Block that the tokens come from; -1 is the last."""
    norm: bool
    """Whether the encoder's final LayerNorm is applied."""
    dtype: str
    """How they are stored: "float16" or "bfloat16"."""


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of consecutive images."""

    tokens: Float[Tensor, "B T E"]
    grid: tuple[int, int]
    """Rows and columns of the patch grid."""
    unreadable: dict[int, str]
    """Row number in the whole set -> why its image could not be read."""


@dataclass
class _State:
    """How far a cache on disk has come; `cache.json` holds it beside the settings."""

    n_done: int = 0
    width: int = 0
    grid: tuple[int, int] = (0, 0)
    unreadable: dict[int, str] = field(default_factory=dict)

    @property
    def row_bytes(self) -> int:
        return 2 * self.grid[0] * self.grid[1] * self.width

    def add(self, batch: TokenBatch) -> None:
        self.n_done += len(batch.tokens)
        self.width = batch.tokens.shape[2]
        self.grid = batch.grid
        self.unreadable |= batch.unreadable


def collect_on_disk(
    iter_batches: Callable[[int], Iterator[TokenBatch]], directory: Path, settings: TokenSettings
) -> TokenBatch:
    """All batches as one, mapped from a file; an interrupted build resumes where it stopped.

    Args:
        iter_batches: Given a row, encodes from that row on.
        directory: Holds tokens.bin, and cache.json with how many of its rows are finished.
        settings: What the tokens depend on.

    Raises:
        InputError: The directory holds a cache of other settings.
        EnvironmentProblem: The disk is full; what was finished is kept.

    Rows are appended, not written into a map of a file made large beforehand: on a full disk an
    append fails with an error that can be reported, a write to a map kills the process.
    """
    state = _read_state(directory, settings)
    tokens_path = directory / _TOKENS
    if state.n_done < settings.n_images:
        try:
            _append(iter_batches(state.n_done), tokens_path, state, settings)
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot write the token cache {directory}",
                why=str(error),
                fix="free some space and run the same command again: what is finished is kept",
            ) from error
    shape = (settings.n_images, state.grid[0] * state.grid[1], state.width)
    mapped = np.memmap(tokens_path, dtype=np.int16, mode="c", shape=shape)
    tokens = torch.from_numpy(mapped).view(DTYPES[settings.dtype])
    return TokenBatch(tokens, state.grid, state.unreadable)


def _append(
    batches: Iterator[TokenBatch], tokens_path: Path, state: _State, settings: TokenSettings
) -> None:
    tokens_path.parent.mkdir(parents=True, exist_ok=True)
    with tokens_path.open("r+b" if state.n_done else "wb") as file:
        file.truncate(state.n_done * state.row_bytes)
        file.seek(0, os.SEEK_END)
        for number, batch in enumerate(batches, start=1):
            file.write(batch.tokens.contiguous().view(torch.int16).numpy().tobytes())
            state.add(batch)
            if number % _SAVE_EVERY == 0 or state.n_done == settings.n_images:
                file.flush()
                os.fsync(file.fileno())
                _save_state(tokens_path.parent, state, settings)


def _save_state(directory: Path, state: _State, settings: TokenSettings) -> None:
    content = {"format": _FORMAT, "settings": asdict(settings), **asdict(state)}
    written = directory / f"{_STATE}.part"
    written.write_text(json.dumps(content, indent=2), encoding="utf-8")
    written.replace(directory / _STATE)


def _read_state(directory: Path, settings: TokenSettings) -> _State:
    """How far the cache has come; from nothing where there is none or its state is damaged.

    Raises:
        InputError: It is a sound cache of other settings, which may have taken hours to build.
    """
    try:
        content = json.loads((directory / _STATE).read_text(encoding="utf-8"))
        there = dict(content["settings"])
        state = _State(
            n_done=content["n_done"],
            width=content["width"],
            grid=(content["grid"][0], content["grid"][1]),
            unreadable={int(row): why for row, why in content["unreadable"].items()},
        )
        n_whole_rows = (directory / _TOKENS).stat().st_size // state.row_bytes
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ZeroDivisionError):
        return _State()
    here = json.loads(json.dumps(asdict(settings)))
    names = [name for name in here if there.get(name) != here[name]]
    if names or content.get("format") != _FORMAT:
        raise InputError(
            f"{directory} holds a token cache of other settings",
            why="\n".join(f"{name}: {there.get(name)} there, {here[name]} here" for name in names),
            fix="give another directory, or delete that one",
        )
    state.n_done = min(state.n_done, n_whole_rows)
    return state
