"""Pairs in tars, read from their places: nothing but an index is held in memory."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pacl.data.columns import CAPTION_COLUMNS
from pacl.data.images import open_image
from pacl.data.order import WindowedOrder
from pacl.data.tables import spread
from pacl.data.tar_index import TarIndex
from pacl.errors import InputError

RETRIES_S = (0.1, 0.5, 2.0)
"""Pauses before a shard that cannot be read is tried again."""
_OPEN_TARS = 64


class _OpenFile:
    """A file that stays open as long as somebody reads from it."""

    def __init__(self, path: Path) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


class TarPairs:
    """Samples of several tars, numbered through; see `pacl.data.stream.PairStream`.

    Args:
        tars: The tars' indices, in the order named.
        notes: Lines about what was left out.
    """

    def __init__(self, tars: Sequence[TarIndex], *, notes: Sequence[str] = ()) -> None:
        self.tars = tars
        self.shards = tuple(tar.n_samples for tar in tars)
        self.order = WindowedOrder(self.shards)
        self._notes = notes
        self._starts = np.array([0, *accumulate(self.shards)], dtype=np.int64)
        self._samples = lru_cache(_OPEN_TARS)(self._map)
        self._open = lru_cache(_OPEN_TARS)(self._open_tar)
        self._lost: dict[int, str] = {}

    def __len__(self) -> int:
        return sum(self.shards)

    @property
    def fingerprint(self) -> str:
        """Identifies the tars by name and what they hold, in any folder."""
        content = "".join(f"{tar.path.name}\0{tar.digest}\n" for tar in self.tars)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def images_fingerprint(self) -> str:
        """Identifies the tars by name, content, size and time of change."""
        content = "".join(f"{t.path.name}\0{t.digest}\0{t.tar_mtime_ns}\n" for t in self.tars)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def open_image(self, row: int) -> Image.Image:
        """Open one image.

        Raises:
            InputError: It is damaged, or its tar cannot be read.
        """
        return open_image(self.read_image_bytes(row), name=self.name(row))

    def read_image_bytes(self, row: int) -> bytes:
        """Read an image's file without decoding it.

        Raises:
            InputError: Its tar cannot be read.
        """
        tar, sample = self._find(row)
        return self._read(tar, int(sample["image_at"]), int(sample["image_size"]))

    def read_captions(self, row: int) -> list[str]:
        """Read the captions of one sample.

        Raises:
            InputError: There is none, or its tar cannot be read.
        """
        tar, sample = self._find(row)
        content = self._read(tar, int(sample["text_at"]), int(sample["text_size"]))
        text = content.decode("utf-8-sig", errors="replace")
        lines = _texts_of_json(text) if sample["is_json"] else text.splitlines()
        texts = list(dict.fromkeys(filter(None, (" ".join(line.split()) for line in lines))))
        if not texts:
            raise InputError(f"{self.name(row)} has no caption")
        return texts

    def name(self, row: int) -> str:
        """Return the tar and member of a sample's image, for messages."""
        tar, sample = self._find(row)
        try:
            header = self._read(tar, int(sample["image_at"]) - 512, 100)
        except InputError:
            return f"{self.tars[tar].path.name}: sample {row - self._starts[tar]}"
        return f"{self.tars[tar].path.name}: {header.rstrip(bytes(1)).decode(errors='replace')}"

    @property
    def n_skipped(self) -> int:
        """Number of samples without an image or a text."""
        return sum(tar.n_no_text + tar.n_no_image for tar in self.tars)

    def summary(self) -> str:
        """What was found and what was left out, one fact per line."""
        lines = [f"{len(self):,} samples in {len(self.tars):,} tars (webdataset tars)"]
        reasons = {
            "no text": sum(tar.n_no_text for tar in self.tars),
            "no image": sum(tar.n_no_image for tar in self.tars),
        }
        found = ", ".join(f"{n:,} with {reason}" for reason, n in reasons.items() if n)
        if found:
            lines.append(f"left out: {found}")
        return "\n".join([*lines, *self._notes])

    def _find(self, row: int) -> tuple[int, Any]:
        tar = int(np.searchsorted(self._starts, row, side="right")) - 1
        return tar, self._samples(tar)[row - self._starts[tar]]

    def _map(self, tar: int) -> np.ndarray:
        return self.tars[tar].samples()

    def _open_tar(self, tar: int) -> _OpenFile:
        return _OpenFile(self.tars[tar].path)

    def _read(self, tar: int, at: int, size: int) -> bytes:
        """Read from a tar, again after a pause where it fails; a tar that is lost stays lost."""
        if tar in self._lost:
            raise InputError(self._lost[tar])
        problem = ""
        for pause_s in (*RETRIES_S, None):
            try:
                content = os.pread(self._open(tar).number, size, at)
                if len(content) == size:
                    return content
                problem = "it is shorter than when it was indexed"
            except OSError as error:
                problem = error.strerror or str(error)
            self._open.cache_clear()
            if pause_s is not None:
                time.sleep(pause_s)
        self._lost[tar] = f"{self.tars[tar].path} cannot be read: {problem}"
        raise InputError(self._lost[tar])


def _texts_of_json(text: str) -> list[str]:
    try:
        content = json.loads(text)
    except ValueError:
        return []
    if not isinstance(content, dict):
        return []
    lower = {key.lower(): value for key, value in content.items()}
    names = (name for one in CAPTION_COLUMNS for name in (one, f"{one}s"))
    chosen = next((lower[name] for name in names if lower.get(name)), None)
    return [cells["caption"] for cells in spread({"caption": chosen})]
