"""Captioned images written as tars of small JPEGs: the cure for data whose decoding is slow."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from PIL import Image

from pacl.data.images import open_image
from pacl.data.pairs import PairSource
from pacl.data.prefetch import prefetch
from pacl.data.source import IMAGE_SUFFIXES
from pacl.data.stream import MixedStream
from pacl.data.tar_members import Member, OpenFile, group_members, iter_members, split_name
from pacl.data.tars import TarPairs
from pacl.errors import InputError
from pacl.runtime.files import read_json_object, replacing, write_atomically

SAMPLES_PER_TAR = 10_000
"""Samples of each tar that a table is written to."""

_FACTS = "convert.json"
_AT_ONCE = 64


@dataclass(frozen=True)
class _Sample:
    """A sample of the tar that is to be written."""

    key: str
    open: Callable[[], Image.Image]
    """Opens the image; raises an InputError where it cannot."""
    others: Callable[[], list[tuple[str, bytes]]]
    """Reads the other members: names and contents."""


@dataclass(frozen=True)
class _Part:
    """A tar that is to be written."""

    name: str
    n_samples: int
    samples: Callable[[], Iterator[_Sample]]


@dataclass
class ConvertReport:
    """What was written, in all runs so far."""

    n_tars: int = 0
    n_complete: int = 0
    n_failed: int = 0
    """Samples whose image could not be read, of the tars that are complete."""
    failures: list[Path] = field(default_factory=list)
    """The files that list them."""


def check_settings(*, short_side_px: int, quality: int, workers: int) -> None:
    """Refuse settings that `convert_pairs` cannot use, before any data are opened.

    Raises:
        InputError: One is out of range.
    """
    limits = {
        "short_side_px": (short_side_px, short_side_px >= 1),
        "quality": (quality, 1 <= quality <= 100),
        "workers": (workers, workers >= 1),
    }
    for name, (value, is_fine) in limits.items():
        if not is_fine:
            raise InputError(
                f"{name}: {value} is out of range",
                fix="sides and workers are at least 1, quality is 1 to 100",
            )


def convert_pairs(
    pairs: PairSource | TarPairs | MixedStream,
    output: Path,
    *,
    short_side_px: int,
    quality: int,
    part: tuple[int, int] = (0, 1),
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> ConvertReport:
    """Write captioned images as tars; a tar is complete or absent, and complete ones are kept.

    Tars keep their names, keys, captions and other members. A table gets tars of
    `SAMPLES_PER_TAR`, with row numbers as keys. A sample whose image cannot be read is left out
    and listed in TAR.failures.csv.

    Args:
        pairs: What `pacl.data.opening.open_pairs` returned.
        output: The folder.
        short_side_px: Images are reduced so that their short side has this length; smaller ones
            keep their size.
        quality: Of the JPEGs, 1 to 100.
        part: The number of this part, from 0, and the number of parts that share the tars.
        workers: Threads that decode and encode.
        on_progress: Called with the numbers of samples done and to do in this part.

    Raises:
        InputError: A setting is out of range, several sources are mixed, or the folder was begun
            from other data or with other settings.
        EnvironmentProblem: The disk is full; complete tars are kept.
    """
    check_settings(short_side_px=short_side_px, quality=quality, workers=workers)
    if isinstance(pairs, MixedStream):
        raise InputError("several sources cannot be converted at once", fix="convert one by one")
    _claim(output, {"source": pairs.fingerprint, "side": short_side_px, "quality": quality})
    parts = _parts_of_tars(pairs) if isinstance(pairs, TarPairs) else _parts_of_table(pairs)
    own = parts[part[0] :: part[1]]
    n_done, n_todo = 0, sum(each.n_samples for each in own)
    encode = partial(_encode, short_side_px=short_side_px, quality=quality)
    for each in own:
        if not (output / each.name).is_file():
            for n_written in _write(each, output / each.name, encode, workers):
                if on_progress is not None:
                    on_progress(n_done + n_written, n_todo)
        n_done += each.n_samples
    complete = [each for each in parts if (output / each.name).is_file()]
    failures = [path for each in complete if (path := _failures_of(output / each.name)).is_file()]
    n_failed = sum(len(path.read_text(encoding="utf-8").splitlines()) - 1 for path in failures)
    return ConvertReport(len(parts), len(complete), n_failed, failures)


def _claim(output: Path, facts: dict[str, object]) -> None:
    """Note what a folder is converted from, or refuse one of other data or settings."""
    there = read_json_object(output / _FACTS)
    if there and there != facts:
        names = [name for name in facts if there.get(name) != facts[name]]
        raise InputError(
            f"{output} was begun from other data or with other settings",
            why="\n".join(f"{name}: {there.get(name)} there, {facts[name]} here" for name in names),
            fix="give another --output",
        )
    if not there:
        write_atomically(output / _FACTS, json.dumps(facts).encode())


def _parts_of_tars(pairs: TarPairs) -> list[_Part]:
    paths = [tar.path for tar in pairs.tars]
    is_unique = len({path.name for path in paths}) == len(paths)
    names = [path.name if is_unique else f"{k:05d}.tar" for k, path in enumerate(paths)]
    return [
        _Part(name, n, partial(_iter_tar, path))
        for name, n, path in zip(names, pairs.shards, paths, strict=True)
    ]


def _iter_tar(path: Path) -> Iterator[_Sample]:
    """Yield the samples of a tar, in order; those without an image are passed over."""
    file = OpenFile(path)

    def read(member: Member) -> bytes:
        return os.pread(file.number, member.size, member.at)

    for key, members in group_members(iter_members(path, path.stat().st_size)):
        image = next(filter(_is_image, members), None)
        if image is not None:
            others = [member for member in members if member is not image]
            yield _Sample(
                key,
                lambda image=image: open_image(read(image), name=f"{path}: {image.name}"),
                lambda others=others: [(member.name, read(member)) for member in others],
            )


def _is_image(member: Member) -> bool:
    return f".{split_name(member.name)[1].lower()}" in IMAGE_SUFFIXES


def _parts_of_table(pairs: PairSource) -> list[_Part]:
    starts = range(0, len(pairs), SAMPLES_PER_TAR)
    rows = [range(start, min(start + SAMPLES_PER_TAR, len(pairs))) for start in starts]
    return [
        _Part(f"{k:05d}.tar", len(of), partial(_iter_rows, pairs, of)) for k, of in enumerate(rows)
    ]


def _iter_rows(pairs: PairSource, rows: range) -> Iterator[_Sample]:
    for row in rows:
        text = "".join(f"{caption}\n" for caption in pairs.captions[row]).encode()
        key = f"{row:09d}"
        yield _Sample(
            key,
            lambda row=row: pairs.open_image(row),
            lambda name=f"{key}.txt", text=text: [(name, text)],
        )


def _encode(
    sample: _Sample, *, short_side_px: int, quality: int
) -> tuple[list[tuple[str, bytes]], str]:
    """Return the members to write; or none, and why the image cannot be read."""
    try:
        image = sample.open()
        others = sample.others()
    except InputError as error:
        return [], error.what
    factor = short_side_px / min(image.size)
    if factor < 1:
        width, height = (max(1, round(side * factor)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return [(f"{sample.key}.jpg", buffer.getvalue()), *others], ""


def _write(
    part: _Part,
    path: Path,
    encode: Callable[[_Sample], tuple[list[tuple[str, bytes]], str]],
    workers: int,
) -> Iterator[int]:
    """Write one tar; yield how many of its samples are done."""
    samples = part.samples()
    batches = iter(lambda: list(islice(samples, _AT_ONCE)), [])
    failed: list[tuple[str, str]] = []
    n_done = 0
    with replacing(path) as draft:
        with tarfile.open(draft, "w") as tar:
            for batch, found in prefetch(encode, batches, workers=workers):
                for sample, (members, why) in zip(batch, found, strict=True):
                    if why:
                        failed.append((sample.key, why))
                    for name, content in members:
                        member = tarfile.TarInfo(name)
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
                n_done += len(batch)
                yield n_done
        _write_failures(_failures_of(path), failed)


def _failures_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.failures.csv")


def _write_failures(path: Path, failed: Sequence[tuple[str, str]]) -> None:
    path.unlink(missing_ok=True)
    if failed:
        text = io.StringIO()
        csv.writer(text).writerows([("key", "why"), *failed])
        write_atomically(path, text.getvalue().encode())
