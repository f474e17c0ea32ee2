"""pacl data index and pacl data convert: tars that are quick to open and quick to decode."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from pacl.cli.console import DONE, SOME_FAILED, progress, result, say
from pacl.cli.options import parse_shard
from pacl.errors import InputError


@dataclass(frozen=True)
class IndexData:
    """Write the indices of tars, which training otherwise builds before its first step."""

    data: Positional[str]
    """Tars by name, range, pattern or folder, such as "shards/{00000..00099}.tar"."""

    rebuild: bool = False
    """Build all indices again, not only those that are missing or older than their tar."""

    shard: str = "0/1"
    """This process does part I of N of the tars."""

    workers: int = 8
    """Tars that are read at the same time."""


@dataclass(frozen=True)
class ConvertData:
    """Write captioned images as tars of small JPEGs, where decoding is slow; resumes."""

    data: Positional[Path]
    """Captioned images in any layout that `pacl train` reads, from one source."""

    output: Path
    """Folder for the tars. One begun from other data or with other settings is refused."""

    short_side_px: int = 256
    """Images are reduced to this short side; smaller ones keep their size."""

    quality: int = 92
    """Quality of the JPEGs, 1 to 100."""

    image_key: str | None = None
    """Column of the image paths; none: detected by name."""

    caption_key: str | None = None
    """Column of the captions; none: detected by name."""

    shard: str = "0/1"
    """This process does part I of N of the tars."""

    workers: int = 2
    """Threads that decode and encode."""


def index_data(options: IndexData) -> int:
    """Index; 1 if a tar cannot be read."""
    from pacl.data.opening import find_tars
    from pacl.data.prefetch import prefetch
    from pacl.data.tar_index import TarIndex, build_index, find_index

    if options.workers < 1:
        raise InputError(f"workers: {options.workers} is out of range", fix="--workers 8")
    number, n_parts = parse_shard(options.shard)
    paths = find_tars(options.data)
    if not paths:
        raise InputError(f"no tars in {options.data}", fix='pacl data index "shards/*.tar"')

    def index(path: Path) -> tuple[TarIndex, bool] | InputError:
        try:
            known = None if options.rebuild else find_index(path)
            return (known or build_index(path), known is None)
        except InputError as error:
            return error

    own = paths[number::n_parts]
    n_samples = n_built = n_failed = 0
    batches = (own[k : k + options.workers] for k in range(0, len(own), options.workers))
    with progress("index") as show:
        for batch, found in prefetch(index, batches, workers=options.workers):
            for each in found:
                if isinstance(each, InputError):
                    say(f"error: {each}")
                    n_failed += 1
                else:
                    n_samples += each[0].n_samples
                    n_built += each[1]
            show(own.index(batch[-1]) + 1, len(own), f"{n_samples:,} samples")
    result(f"{n_samples:,} samples in {len(own) - n_failed:,} tars; {n_built:,} indices written")
    say(f"next: pacl data check {shlex.quote(options.data)}")
    return SOME_FAILED if n_failed else DONE


def convert_data(options: ConvertData) -> int:
    """Convert; 1 if an image cannot be read."""
    from pacl.data.converting import convert_pairs
    from pacl.data.opening import open_pairs

    limits = {
        "short_side_px": options.short_side_px >= 1,
        "quality": 1 <= options.quality <= 100,
        "workers": options.workers >= 1,
    }
    for name, is_fine in limits.items():
        if not is_fine:
            raise InputError(
                f"{name}: {getattr(options, name)} is out of range",
                fix="sides and workers are at least 1, quality is 1 to 100",
            )
    pairs = open_pairs(options.data, image_key=options.image_key, caption_key=options.caption_key)
    say(pairs.summary())
    with progress("convert") as show:
        done = convert_pairs(
            pairs,
            options.output,
            short_side_px=options.short_side_px,
            quality=options.quality,
            part=parse_shard(options.shard),
            workers=options.workers,
            on_progress=lambda n_done, n: show(n_done, n, "samples"),
        )
    result(f"{done.n_complete:,} of {done.n_tars:,} tars in {options.output}")
    if done.n_failed:
        say(f"{done.n_failed:,} images cannot be read, listed in {done.failures[0]}")
    if done.n_complete < done.n_tars:
        say("others do the rest")
    else:
        say(f"next: pacl train --data {shlex.quote(str(options.output))} --output runs/mine")
    return SOME_FAILED if done.n_failed else DONE
