"""pacl data index and pacl data convert: tars that are quick to open and quick to decode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from pacl.cli.console import DONE, SOME_FAILED, progress, result, say, say_next
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
    from pacl.data.tar_index import iter_indices

    if options.workers < 1:
        raise InputError(f"workers: {options.workers} is out of range", fix="--workers 8")
    number, n_parts = parse_shard(options.shard)
    paths = find_tars(options.data)
    if not paths:
        raise InputError(f"no tars in {options.data}", fix='pacl data index "shards/*.tar"')
    own = paths[number::n_parts]
    found = iter_indices(own, rebuild=options.rebuild, workers=options.workers)
    n_samples = n_built = n_failed = 0
    with progress("index") as show:
        for n_done, each in enumerate(found, start=1):
            if isinstance(each, InputError):
                say(f"error: {each}")
                n_failed += 1
            else:
                n_samples += each[0].n_samples
                n_built += each[1]
            show(n_done, len(own), f"{n_samples:,} samples")
    result(f"{n_samples:,} samples in {len(own) - n_failed:,} tars; {n_built:,} indices written")
    say_next("data", "check", options.data)
    return SOME_FAILED if n_failed else DONE


def convert_data(options: ConvertData) -> int:
    """Convert; 1 if an image cannot be read."""
    from pacl.data.converting import check_settings, convert_pairs
    from pacl.data.opening import open_pairs

    names = ("short_side_px", "quality", "workers")
    settings = {name: getattr(options, name) for name in names}
    check_settings(**settings)
    pairs = open_pairs(options.data, image_key=options.image_key, caption_key=options.caption_key)
    say(pairs.summary())
    with progress("convert") as show:
        done = convert_pairs(
            pairs,
            options.output,
            **settings,
            part=parse_shard(options.shard),
            on_progress=lambda n_done, n: show(n_done, n, "samples"),
        )
    result(f"{done.n_complete:,} of {done.n_tars:,} tars in {options.output}")
    if done.n_failed:
        say(f"{done.n_failed:,} images cannot be read, listed in {done.failures[0]}")
    if done.n_complete < done.n_tars:
        say("others do the rest")
    else:
        say_next("train", data=options.output, output="runs/mine")
    return SOME_FAILED if done.n_failed else DONE
