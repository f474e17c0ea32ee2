"""Opening whatever a user names as data: tables, folders, tars, data sets, and mixtures of them."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from pacl.data.layouts import TABLE_NAMES
from pacl.data.pairs import PairSource, read_pairs
from pacl.data.recaptions import Recaptions
from pacl.data.saved import is_saved_dataset, read_hub, read_saved
from pacl.data.source import expand_braces
from pacl.data.stream import HeldStream, MixedStream
from pacl.data.tar_index import TarIndex, index_tar
from pacl.data.tars import TarPairs
from pacl.errors import InputError


def open_pairs(
    place: str | Path,
    *,
    image_key: str | None = None,
    caption_key: str | None = None,
    recaptions: Recaptions | None = None,
) -> PairSource | TarPairs | MixedStream:
    """Open captioned images in any layout that pacl knows.

    Args:
        place: A CSV, TSV, JSONL, Parquet or COCO captions file; a folder with one of these, with
            a text beside each image, with tars, or written by `datasets`; tars by name, pattern
            or range, such as shards/{00000..00099}.tar; owner/name on the hub; or several of
            these with commas between them, each with =WEIGHT for passes per epoch.
        image_key, caption_key: Columns; None: detected by name.
        recaptions: Captions by key, for the tars among them.

    Returns:
        Pairs held in memory; of tars and mixtures a stream.

    Raises:
        InputError: There is no data, no such column, or no usable row.
        EnvironmentProblem: A package that this layout needs is missing, or an index cannot be
            written.
    """
    whole = str(place)
    keys = {"image_key": image_key, "caption_key": caption_key}
    parts = [(whole, 1.0)] if Path(whole).exists() else list(_split_weights(whole))
    opened = [_open_one(name, recaptions, **keys) for name, _ in parts]
    if recaptions is not None and not any(isinstance(each, TarPairs) for each in opened):
        raise InputError(
            f"{recaptions.table}: captions are joined to tars by key, and {whole} is no tar",
            fix="add the captions to the table that --data names",
        )
    if len(opened) == 1 and parts[0][1] == 1:
        return opened[0]
    streams = [p if isinstance(p, TarPairs) else HeldStream(p) for p in opened]
    return MixedStream(streams, [weight for _, weight in parts])


def _split_weights(places: str) -> Iterator[tuple[str, float]]:
    for part in re.split(r",(?![^{}]*\})", places):
        name, found, weight = part.rpartition("=")
        if not found:
            yield part, 1.0
            continue
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise InputError(
                f"data: {part} has no weight after its =",
                fix="for example --data a.csv=2,b.csv=0.5: a twice per epoch",
            )
        yield name, value


def _open_one(
    name: str, recaptions: Recaptions | None, *, image_key: str | None, caption_key: str | None
) -> PairSource | TarPairs:
    path = Path(name)
    keys = {"image_key": image_key, "caption_key": caption_key}
    if tars := find_tars(name):
        return _open_tars(name, tars, recaptions)
    if is_saved_dataset(path):
        return read_saved(path, **keys)
    if not path.exists() and not path.parent.is_dir() and _is_hub_name(name):
        return read_hub(name, **keys)
    return read_pairs(path, **keys)


def find_tars(name: str) -> list[Path]:
    """Return the tars that a name, range, pattern or folder stands for; none where it is no tar.

    Raises:
        InputError: A pattern or range stands for no file, or for files that are no tars.
    """
    path = Path(name)
    is_pattern = not path.exists() and ("{" in name or glob.has_magic(name))
    if path.suffix != ".tar" and not is_pattern:
        has_table = path.is_dir() and any((path / table).is_file() for table in TABLE_NAMES)
        return [] if has_table or is_saved_dataset(path) else sorted(path.glob("*.tar"))
    paths = list(_expand(name))
    if not paths:
        raise _no_captioned(name, "tars looked for: 0, none is there")
    for each in paths:
        if each.suffix != ".tar":
            raise InputError(
                f"data: {each} is no .tar", fix="name several tables with commas between them"
            )
    return paths


def _expand(name: str) -> Iterator[Path]:
    """Yield the files that ranges {00..99}, choices {a,b} and patterns stand for."""
    for each in expand_braces(name):
        if glob.has_magic(each):
            # Path.glob takes no absolute pattern.
            yield from map(Path, sorted(glob.glob(each, recursive=True)))  # noqa: PTH207
        else:
            yield Path(each)


def _open_tars(name: str, paths: list[Path], recaptions: Recaptions | None) -> TarPairs:
    tars: list[TarIndex] = []
    missing: list[str] = []
    for path in paths:
        try:
            tars.append(index_tar(path, needs_textless=recaptions is not None))
        except InputError:
            if path.exists():
                raise
            missing.append(path.name)
    notes = [f"no such tar: {', '.join(missing[:5])}; {len(missing):,} in all"] if missing else ()
    pairs = TarPairs(tars, notes=notes, recaptions=recaptions)
    if not len(pairs):
        raise _no_captioned(
            name, pairs.summary() if tars else f"tars looked for: {len(paths):,}, none is there"
        )
    return pairs


def _no_captioned(name: str, why: str) -> InputError:
    return InputError(
        f"no captioned image in {name}",
        why=why,
        fix="a sample is an image and a .txt or .json of the same name: 000.jpg, 000.txt",
    )


def _is_hub_name(name: str) -> bool:
    owner, _, rest = name.partition("/")
    is_plain = bool(owner) and bool(rest) and "/" not in rest and not Path(rest).suffix
    return is_plain and not {owner[0], rest[0]} & {".", "~"}
