"""Images in tar archives, read in the order in which they lie there, without unpacking."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path, PurePosixPath

from pacl.data.images import open_image
from pacl.data.source import IMAGE_SUFFIXES, Source, failing
from pacl.data.urls import open_url, read_limited
from pacl.errors import InputError


def iter_members(name: str) -> Iterator[Source]:
    """Yield the images of a tar archive, compressed or not; other members are passed over.

    Args:
        name: A file or an http or https address.

    Yields:
        Sources named ARCHIVE/MEMBER; where the archive is damaged, the last one fails.
    """
    n_read = 0
    stream = open_url(name) if "://" in name else nullcontext(None)
    try:
        with (
            stream as file,
            tarfile.open(None if file else Path(name), "r|*", fileobj=file) as archive,
        ):
            for member in archive:
                path = PurePosixPath(member.name)
                is_image = path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."
                content = archive.extractfile(member) if is_image and member.isfile() else None
                if content is not None:
                    label = f"{name}/{member.name}"
                    try:
                        data = read_limited(content, label)
                        yield Source(label, partial(open_image, data, name=label))
                    except InputError as error:  # too large
                        yield failing(label, error)
                    n_read += 1
        if not n_read:
            yield failing(name, InputError(f"no images in {name}"))
    except InputError as error:
        yield failing(name, error)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        problem = InputError(f"{name} is damaged after {n_read:,} images", why=str(error))
        yield failing(name, problem)
