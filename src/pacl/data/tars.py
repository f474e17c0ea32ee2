"""Pairs in tars, read from their places: nothing but an index is held in memory."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
from PIL import Image

from pacl.data.columns import CAPTION_COLUMNS
from pacl.data.images import open_image
from pacl.data.order import WindowedOrder
from pacl.data.recaptions import Recaptions
from pacl.data.tables import spread
from pacl.data.tar_index import TarIndex
from pacl.data.tar_members import OpenFile
from pacl.errors import InputError

RETRIES_S = (0.1, 0.5, 2.0)
"""Pauses before a shard that cannot be read is tried again."""
_OPEN_TARS = 64
_N_LOOKED_UP = 1000
"""Samples that are looked up in a table of captions before a run."""


class TarPairs:
    """Samples of several tars, numbered through; see `pacl.data.stream.PairStream`.

    Args:
        tars: The tars' indices, in the order named.
        notes: Lines about what was left out.
        recaptions: Captions by key that replace or extend those in the tars; samples without a
            text that are in this table come after the others of their tar.

    Raises:
        InputError: The table has captions for none of the samples.
    """

    def __init__(
        self,
        tars: Sequence[TarIndex],
        *,
        notes: Sequence[str] = (),
        recaptions: Recaptions | None = None,
    ) -> None:
        self.tars = tars
        self._recaptions = recaptions
        self._added = [self._find_added(tar) for tar in tars] if recaptions else []
        added = [len(numbers) for numbers in self._added] or [0] * len(tars)
        self._n_added = sum(added)
        self.shards = tuple(t.n_samples + n for t, n in zip(tars, added, strict=True))
        self.order = WindowedOrder(self.shards)
        self._notes = notes
        self._starts = np.array([0, *accumulate(self.shards)], dtype=np.int64)
        self._samples = lru_cache(_OPEN_TARS)(self._map)
        self._open = lru_cache(_OPEN_TARS)(self._open_tar)
        self._lost: dict[int, str] = {}
        self._share_recaptioned = self._measure_recaptioned()

    def __len__(self) -> int:
        return sum(self.shards)

    @property
    def fingerprint(self) -> str:
        """Identifies the tars by name and what they hold, in any folder."""
        content = "".join(f"{tar.path.name}\0{tar.digest}\n" for tar in self.tars)
        if self._recaptions is not None:
            content += self._recaptions.fingerprint
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def images_fingerprint(self) -> str:
        """Identifies the tars by name, content, size and time of change."""
        content = "".join(f"{t.path.name}\0{t.digest}\0{t.tar_mtime_ns}\n" for t in self.tars)
        if self._recaptions is not None and self._n_added:
            content += f"{self._recaptions.fingerprint} {self.shards}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def open_image(self, row: int) -> Image.Image:
        """Open one image.

        Raises:
            InputError: It is damaged, or its tar cannot be read.
        """
        content = self.read_image_bytes(row)
        try:
            return open_image(content)
        except InputError:
            return open_image(content, name=self.name(row))  # fails again, with its name

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
        table = self._recaptions
        new = table.find(int(sample["key"])) if table is not None else []
        is_replaced = bool(new) and table is not None and table.mode == "replace"
        old = [] if is_replaced else self._read_own_captions(tar, sample)
        texts = list(dict.fromkeys([*old, *new]))
        if not texts:
            raise InputError(f"{self.name(row)} has no caption")
        return texts

    def _read_own_captions(self, tar: int, sample: Any) -> list[str]:
        content = self._read(tar, int(sample["text_at"]), int(sample["text_size"]))
        text = content.decode("utf-8-sig", errors="replace")
        lines = _texts_of_json(text) if sample["is_json"] else text.splitlines()
        return list(filter(None, (" ".join(line.split()) for line in lines)))

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
        return sum(tar.n_no_text + tar.n_no_image for tar in self.tars) - self._n_added

    def summary(self) -> str:
        """What was found and what was left out, one fact per line."""
        lines = [f"{len(self):,} samples in {len(self.tars):,} tars (webdataset tars)"]
        reasons = {
            "no text": sum(tar.n_no_text for tar in self.tars) - self._n_added,
            "no image": sum(tar.n_no_image for tar in self.tars),
        }
        found = ", ".join(f"{n:,} with {reason}" for reason, n in reasons.items() if n)
        if found:
            lines.append(f"left out: {found}")
        if (table := self._recaptions) is not None:
            verb = "replace" if table.mode == "replace" else "extend"
            lines.append(
                f"{table.n:,} captions of {table.n_keys:,} keys in {table.table} {verb} those of "
                f"about {self._share_recaptioned:.0%} of the samples"
            )
        return "\n".join([*lines, *self._notes])

    def _find(self, row: int) -> tuple[int, Any]:
        tar = int(np.searchsorted(self._starts, row, side="right")) - 1
        return tar, self._samples(tar)[row - self._starts[tar]]

    def _map(self, tar: int) -> np.ndarray:
        samples = self.tars[tar].samples()
        if not self._added or not len(self._added[tar]):
            return samples
        return np.concatenate([samples, self.tars[tar].textless()[self._added[tar]]])

    def _find_added(self, tar: TarIndex) -> np.ndarray:
        """Return which samples without a text have captions in the table."""
        assert self._recaptions is not None
        return np.flatnonzero(self._recaptions.has(tar.textless()["key"]))

    def _measure_recaptioned(self) -> float:
        """Return the share of samples that are in the table, of some that are spread over all."""
        if self._recaptions is None or not len(self):
            return 0.0
        rows = np.unique(np.linspace(0, len(self) - 1, _N_LOOKED_UP).astype(int))
        keys = np.array([self._find(int(row))[1]["key"] for row in rows], dtype=np.uint64)
        share = float(self._recaptions.has(keys).mean())
        if not share:
            raise InputError(
                f"{self._recaptions.table} has captions for none of the samples",
                why=f"its first key is {self._recaptions.example}, "
                f"the first sample is {self.name(0)}",
                fix="a key is a member's name up to its first dot",
            )
        return share

    def _open_tar(self, tar: int) -> OpenFile:
        return OpenFile(self.tars[tar].path)

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
