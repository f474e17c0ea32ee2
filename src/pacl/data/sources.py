"""Where images come from: the places that a user names, as a stream of one `Source` per image.

Files are listed immediately, so that a missing one is reported before anything is loaded. Videos,
archives and addresses are read when their images are needed; a problem there concerns that one
source, which appears in the stream with an `open` that raises.
"""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

from pacl.data.archives import iter_members
from pacl.data.images import open_image
from pacl.data.source import IMAGE_SUFFIXES, Source, expand_braces, failing
from pacl.data.urls import read_limited, read_url
from pacl.data.video import count_frames, iter_frames
from pacl.errors import InputError

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")
LIST_SUFFIX = ".txt"
STDIN = "-"


Place = str | Path | Source
Places = Place | Iterable[Place]
"""One or several places, as accepted by `find_sources`."""


class Sources:
    """The images of several places, each once, in order; can be iterated over once.

    Args:
        parts: For each place its images and, where it is known beforehand, their number.
    """

    def __init__(self, parts: Iterable[tuple[Iterable[Source], int | None]]) -> None:
        self._parts = parts

    def count(self) -> int | None:
        """Return the number of images, approximate for videos; None if it is not known."""
        if not isinstance(self._parts, Sequence):
            return None
        counts = [n for _, n in self._parts]
        return None if None in counts else sum(n for n in counts if n is not None)

    def __iter__(self) -> Iterator[Source]:
        seen: set[str] = set()
        for source in chain.from_iterable(images for images, _ in self._parts):
            if source.name not in seen:
                seen.add(source.name)
                yield source


def find_sources(places: Places, *, every: int = 1) -> Sources:
    """Find the images that a user names, each once, in the order named.

    Args:
        places: One or several of: an image file (taken whatever its ending); a folder (the images
            directly in it, by name); a pattern such as "photos/**/*.jpg" or "{000..099}.tar"; a
            .txt file with a place per line, relative to the working directory or to its own
            folder; a tar archive; a video; an address (http, https) of an image, archive or video;
            "-" for an image on stdin; or a `Source`. An iterator is consumed as images are needed.
        every: One in so many frames of a video is taken, starting with the first.

    Raises:
        InputError: A place does not exist or holds no images.
    """
    if every < 1:
        raise InputError(f"every {every} frames", fix="--every 1 for all, 30 for one in thirty")
    if isinstance(places, str | Path | Source):
        places = [places]
    if isinstance(places, Sequence):
        return Sources([part for place in places for part in _find(place, every)])
    return Sources(part for place in places for part in _find(place, every))


def _find(place: Place, every: int) -> Iterator[tuple[Iterable[Source], int | None]]:
    """Yield the images of one place and their number."""
    if isinstance(place, Source):
        yield [place], 1
        return
    text = str(place)
    if text == STDIN:
        yield [Source("stdin", _open_stdin)], 1
    elif "://" in text:
        yield _open_as(text, urlsplit(text).path.lower(), every)
    else:
        files = find_files(place)
        if len(files) == 1:
            yield _open_as(str(files[0]), str(files[0]).lower(), every)
        elif not any(path.name.lower().endswith(_STREAMED) for path in files):
            yield _FileSources(files), len(files)
        else:
            yield from (_open_as(str(path), str(path).lower(), every) for path in files)


class _FileSources(Iterable[Source]):
    """Files, as sources that are made one by one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[Source]:
        return (Source(str(path), partial(open_image, path)) for path in self._paths)


def _open_as(name: str, path: str, every: int) -> tuple[Iterable[Source], int | None]:
    """Return the images of one file or address, by the ending of its path, and their number."""
    if path.endswith(VIDEO_SUFFIXES):
        return iter_frames(name, every=every), count_frames(name, every=every)
    if path.endswith(ARCHIVE_SUFFIXES):
        return iter_members(name), None
    if "://" in name:
        return [Source(name, lambda: open_image(read_url(name), name=name))], 1
    if path.endswith(LIST_SUFFIX):
        listed = _read_list(Path(name))
        return _iter_listed(listed, every), None if _holds_many(listed) else len(listed)
    return [Source(name, partial(open_image, Path(name)))], 1


def _read_list(path: Path) -> list[str]:
    """Read the places in a list; those not found from here are looked for in the list's folder."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"cannot read {path} as a list of images", why=str(error)) from error
    listed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    beside = ((line, path.parent / line) for line in listed)
    return [str(p) if p.exists() and not Path(line).exists() else line for line, p in beside]


def _iter_listed(lines: Sequence[str], every: int) -> Iterator[Source]:
    """Yield the images of a list; a missing place becomes one failing source."""
    for line in lines:
        try:
            yield from chain.from_iterable(images for images, _ in _find(line, every))
        except InputError as error:
            yield failing(line, error)


def _holds_many(lines: Sequence[str]) -> bool:
    many = (*_STREAMED, LIST_SUFFIX)
    return any(
        line.lower().endswith(many) or glob.has_magic(line) or Path(line).is_dir() for line in lines
    )


_STREAMED = (*VIDEO_SUFFIXES, *ARCHIVE_SUFFIXES)


def find_files(place: str | Path) -> Sequence[Path]:
    """Return the files that a path, folder or pattern stands for, in order.

    Raises:
        InputError: There are none.
    """
    path = Path(place)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if _is_image(p))
        looked_for = "files ending in " + " ".join(sorted(IMAGE_SUFFIXES))
    elif path.exists():
        return [path]
    elif (names := [*expand_braces(str(place))]) != [str(place)]:
        return [path for name in names for path in find_files(name)]
    elif glob.has_magic(str(place)):
        # Path.glob does not accept absolute patterns.
        matches = glob.glob(str(place), recursive=True)  # noqa: PTH207
        files = sorted(p for p in map(Path, matches) if _is_image(p) or _is_streamed(p))
        looked_for = "image files that match the pattern"
    else:
        raise InputError(f"no such file or folder: {place}")
    if not files:
        raise InputError(f"no images in {place}", why=f"looked for: {looked_for}")
    return files


def _is_image(path: Path) -> bool:
    is_hidden = path.name.startswith(".")
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden and path.is_file()


def _is_streamed(path: Path) -> bool:
    return path.name.lower().endswith(_STREAMED) and path.is_file()


def _open_stdin() -> Image.Image:
    return open_image(read_limited(sys.stdin.buffer, "stdin"), name="stdin")
