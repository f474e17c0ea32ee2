"""What training would find in pairs: a few of them, lengths, broken and repeated images, sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from pacl.data.pairs import PairSource
from pacl.data.prefetch import N_THREADS, prefetch
from pacl.data.stream import HeldStream, MixedStream, PairStream
from pacl.data.tars import TarPairs
from pacl.errors import InputError

N_CHECKED = 2_000
"""Images that are opened, spread over the data."""
_N_SHOWN = 3
_CLIP_WORDS = 50
"""About as many words as a CLIP's 77 tokens hold."""
_TOKENS_BYTES = 196 * 768 * 2
"""Of an image's tokens from a ViT-B/16 at 224 pixels, in half precision."""


@dataclass
class PairsCheck:
    """Outcome of reading some of the pairs."""

    n_images: int
    n_checked: int
    broken: list[str] = field(default_factory=list)
    n_repeated: int = 0
    n_captions: list[int] = field(default_factory=list)
    n_words: list[int] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    @property
    def n_broken(self) -> int:
        """Number of images that cannot be read, among those checked."""
        return len(self.broken)

    def lines(self) -> Iterator[str]:
        """Yield the findings, one fact per line."""
        yield from (f"  {example}" for example in self.examples)
        if self.n_captions:
            low, high = min(self.n_captions), max(self.n_captions)
            yield f"captions per image: {low} to {high}; one is drawn per epoch"
            long = sum(n > _CLIP_WORDS for n in self.n_words)
            yield (
                f"words per caption: {np.median(self.n_words):.0f} in the middle, "
                f"{max(self.n_words)} at most; {long:,} may be cut at a CLIP's 77 tokens"
            )
        yield f"opened {self.n_checked:,} of {self.n_images:,} images: {self.n_broken:,} broken"
        yield from (f"  {why}" for why in self.broken[:_N_SHOWN])
        if self.n_repeated:
            yield f"{self.n_repeated:,} images equal another one, pixel for pixel"
        size = self.n_images * _TOKENS_BYTES / 2**30
        yield f"--cache memory or disk: {size:,.1f} GiB of tokens with a ViT-B/16 at 224 pixels"


def check_pairs(
    pairs: PairSource | TarPairs | MixedStream,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> PairsCheck:
    """Read pairs spread over the data, at most `N_CHECKED`.

    Args:
        pairs: What `pacl.data.opening.open_pairs` returned.
        on_progress: Called with the numbers of images read and to read.
    """
    stream = pairs if isinstance(pairs, TarPairs | MixedStream) else HeldStream(pairs)
    rows = np.unique(np.linspace(0, len(stream) - 1, N_CHECKED).astype(int)).tolist()
    check = PairsCheck(len(stream), len(rows))
    seen: set[bytes] = set()
    n_read = 0
    batches = [rows[k : k + 64] for k in range(0, len(rows), 64)]
    for batch, found in prefetch(lambda row: _read(stream, row), batches, workers=N_THREADS):
        for row, (captions, digest, why) in zip(batch, found, strict=True):
            if why:
                check.broken.append(why)
                continue
            check.n_repeated += digest in seen
            seen.add(digest)
            check.n_captions.append(len(captions))
            check.n_words += [len(text.split()) for text in captions]
            if len(check.examples) < _N_SHOWN:
                check.examples.append(f"{stream.name(row)}: {captions[0]}")
        if on_progress is not None:
            n_read += len(batch)
            on_progress(n_read, len(rows))
    return check


def _read(stream: PairStream, row: int) -> tuple[list[str], bytes, str]:
    """Return captions, a digest of the pixels, and why the pair cannot be read."""
    try:
        captions = list(stream.read_captions(row))
        pixels = stream.open_image(row)
    except InputError as error:
        return [], b"", error.what
    digest = hashlib.blake2b(f"{pixels.size}".encode() + pixels.tobytes(), digest_size=16)
    return captions, digest.digest(), ""
