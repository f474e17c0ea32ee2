"""Patch tokens on disk: one file per some images, each complete or absent.

A folder holds `cache.json` (what the tokens depend on) and for each shard of `SHARD_ROWS` images a
file of tokens and one of facts, which is written last: where it is, the shard is complete. So any
number of processes can build a cache together, and an interrupted build resumes at its shards.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pacl.errors import EnvironmentProblem, InputError
from pacl.runtime.files import read_json_object, replacing, write_atomically

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
SHARD_ROWS = 1024
"""Images of a shard: 294 MiB with a ViT-B/16 at 224 pixels."""

_FORMAT = "pacl-tokens-2"
_ONE_FILE, _ONE_FILE_TOKENS = "pacl-tokens-1", "tokens.bin"
"""The format before, with all tokens in one file."""
_FACTS = "cache.json"
_OPEN_SHARDS = 256


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
    precision: str
    """How the encoder computed: "fp32" or "bf16"."""


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of consecutive images."""

    tokens: Float[Tensor, "B T E"]
    grid: tuple[int, int]
    """Rows and columns of the patch grid."""
    unreadable: dict[int, str]
    """Row number in the whole set -> why its image could not be read."""


@dataclass(frozen=True)
class Shard:
    """A complete shard."""

    path: Path
    """Its tokens, row by row."""
    first_row: int
    n_rows: int
    grid: tuple[int, int]
    width: int
    unreadable: dict[int, str]
    crc32: int | None
    """Checksum of the file; None in the format before."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return 2 * self.n_rows * self.grid[0] * self.grid[1] * self.width

    def is_sound(self) -> bool:
        """Read the whole file and return whether its checksum is right."""
        if self.crc32 is None:
            return True
        found = 0
        with self.path.open("rb") as file:
            while block := file.read(1 << 22):
                found = zlib.crc32(block, found)
        return found == self.crc32


class TokenStore:
    """The shards in a folder.

    Args:
        directory: The folder; created where it is missing.
        settings: What the tokens depend on.

    Raises:
        InputError: It holds tokens of other settings, which may have taken hours to compute.
        EnvironmentProblem: It cannot be written.
    """

    def __init__(self, directory: Path, settings: TokenSettings) -> None:
        self.directory, self.settings = directory, settings
        self._key = hashlib.sha256(json.dumps(asdict(settings)).encode()).hexdigest()[:16]
        found = read_json_object(directory / _FACTS)
        there = found.get("settings")
        is_known = found.get("format") in (_FORMAT, _ONE_FILE)
        if is_known and isinstance(there, dict):
            self._refuse_others(there)
        self._whole = self._read_one_file(found) if found.get("format") == _ONE_FILE else None
        self._rows = settings.n_images if self._whole else SHARD_ROWS
        if is_known and found["format"] == _FORMAT:
            self._rows = int(found["rows_per_shard"])
        elif self._whole is None:
            (directory / _ONE_FILE_TOKENS).unlink(missing_ok=True)  # was never finished
            facts = {"format": _FORMAT, "rows_per_shard": self._rows, "settings": asdict(settings)}
            write_atomically(directory / _FACTS, json.dumps(facts, indent=2).encode())

    @property
    def n_shards(self) -> int:
        """Number of shards of the complete cache."""
        return -(-self.settings.n_images // self._rows)

    def rows(self, number: int) -> range:
        """Return the rows of a shard."""
        return range(number * self._rows, min((number + 1) * self._rows, self.settings.n_images))

    def find(self, number: int) -> Shard | None:
        """Return a shard if it is complete."""
        if self._whole is not None:
            return self._whole
        path, rows = self._path(number), self.rows(number)
        facts = read_json_object(path.with_suffix(".json"))
        try:
            unreadable = {int(row): why for row, why in facts.pop("unreadable").items()}
            grid = (facts["grid"][0], facts["grid"][1])
            width, crc32 = facts["width"], facts["crc32"]
            shard = Shard(path, rows.start, len(rows), grid, width, unreadable, crc32)
            is_whole = path.stat().st_size == shard.size and facts["settings"] == self._key
        except (OSError, LookupError, TypeError, ValueError, AttributeError):
            return None
        return shard if is_whole else None

    def write(self, number: int, batches: Iterator[TokenBatch]) -> None:
        """Write a shard.

        Args:
            number: The shard's number.
            batches: The tokens of its rows.

        Raises:
            EnvironmentProblem: The disk is full; complete shards are kept.
        """
        path, crc32, unreadable, batch = self._path(number), 0, {}, None
        with replacing(path) as draft, draft.open("wb") as file:
            for batch in batches:
                content = batch.tokens.contiguous().view(torch.int16).numpy().tobytes()
                file.write(content)
                crc32 = zlib.crc32(content, crc32)
                unreadable |= batch.unreadable
        assert batch is not None
        facts = {"grid": batch.grid, "width": batch.tokens.shape[2], "crc32": crc32}
        facts |= {"unreadable": unreadable, "settings": self._key}
        content = json.dumps(facts).encode()
        write_atomically(path.with_suffix(".json"), content)

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:05d}.bin"

    def _read_one_file(self, found: dict[str, Any]) -> Shard | None:
        """Return the one shard that a complete cache of the format before is."""
        path, n = self.directory / _ONE_FILE_TOKENS, self.settings.n_images
        try:
            unreadable = {int(row): why for row, why in found["unreadable"].items()}
            grid = (found["grid"][0], found["grid"][1])
            shard = Shard(path, 0, n, grid, found["width"], unreadable, None)
            is_whole = found["n_done"] == n and path.stat().st_size == shard.size
        except (OSError, LookupError, TypeError, ValueError, AttributeError):
            return None
        return shard if is_whole else None

    def _refuse_others(self, there: dict[str, Any]) -> None:
        here = json.loads(json.dumps(asdict(self.settings)))
        names = [name for name in here if there.get(name, here[name]) != here[name]]
        if names:
            raise InputError(
                f"{self.directory} holds a token cache of other settings",
                why="\n".join(f"{name}: {there[name]} there, {here[name]} here" for name in names),
                fix="give another directory, or delete that one",
            )


class MappedTokens:
    """Tokens of complete shards, mapped from their files when they are first needed.

    Args:
        shards: All shards, in order.
        dtype: `torch.float16` or torch.bfloat16.
    """

    def __init__(self, shards: list[Shard], dtype: torch.dtype) -> None:
        self._shards, self._dtype = shards, dtype
        self._rows = shards[0].n_rows
        self._is_checked = np.zeros(len(shards), dtype=bool)
        self._map = lru_cache(_OPEN_SHARDS)(self._open)

    def take(self, rows: np.ndarray) -> Float[Tensor, "B T E"]:
        """Return the tokens of some rows.

        Raises:
            EnvironmentProblem: The file of a shard is damaged or missing.
        """
        first = self._shards[0]
        n_patches = first.grid[0] * first.grid[1]
        found = torch.empty(len(rows), n_patches, first.width, dtype=self._dtype)
        numbers = rows // self._rows
        for number in np.unique(numbers):
            places = np.flatnonzero(numbers == number)
            chosen = torch.from_numpy(rows[places] - number * self._rows)
            found[torch.from_numpy(places)] = self._map(int(number)).index_select(0, chosen)
        return found

    def _open(self, number: int) -> Tensor:
        shard = self._shards[number]
        try:
            is_sound = bool(self._is_checked[number]) or shard.is_sound()
            shape = (shard.n_rows, shard.grid[0] * shard.grid[1], shard.width)
            mapped = np.memmap(shard.path, dtype=np.int16, mode="c", shape=shape)
        except (OSError, ValueError) as error:
            raise EnvironmentProblem(f"cannot read {shard.path}", why=str(error)) from error
        if not is_sound:
            raise EnvironmentProblem(
                f"{shard.path} is damaged",
                why="its checksum is not that of the tokens that were written",
                fix="delete it and run the same command again: its images are encoded anew",
            )
        self._is_checked[number] = True
        return torch.from_numpy(mapped).view(self._dtype)
