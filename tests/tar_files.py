"""Tars of captioned images for the tests."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from PIL import Image

Members = list[tuple[str, bytes]]


def png(number: int, size: tuple[int, int] = (4, 3)) -> bytes:
    """Encode an image of one colour, whose red is its number."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: Members, form: int = tarfile.USTAR_FORMAT) -> Path:
    """Write a tar of named contents."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
