"""Files and directories that are written whole or not at all.

A file is written under another name in the same directory, flushed to disk, then renamed. A
directory ``last/`` is written as ``.last.new``, flushed, and only then replaces the old one, which
is kept as ``.last.old`` between the two renames. Whatever interrupts this (full disk, kill, power
failure), one complete directory remains, and ``recover`` restores it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pacl.errors import EnvironmentProblem


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; the file written there then replaces the one at ``path``.

    Raises:
        EnvironmentProblem: The disk is full or not writable; the file at ``path`` is kept.
    """
    draft: Path | None = None
    with disk_problems_named(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            os.close(handle)
            draft = Path(name)
            yield draft
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
            draft.chmod(0o644)  # temporary files are private; results are for sharing
            draft.replace(path)
        finally:
            if draft is not None:
                draft.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all; see ``replacing``."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def replace_directory(directory: Path, write: Callable[[Path], None]) -> None:
    """Replace a directory's contents with what ``write`` puts into an empty one.

    Args:
        directory: The directory to create or replace.
        write: Called with an existing empty directory to fill.

    Raises:
        EnvironmentProblem: The disk is full or not writable; the old contents are kept.
    """
    recover(directory)
    new, old = _beside(directory, "new"), _beside(directory, "old")
    with disk_problems_named(directory):
        try:
            new.mkdir(parents=True)
            write(new)
            _flush(new)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        if directory.exists():
            directory.rename(old)
        new.rename(directory)
        _flush_names(directory.parent)
        shutil.rmtree(old, ignore_errors=True)


def recover(directory: Path) -> None:
    """Restore a directory to its newest complete state after an interrupted replacement."""
    new, old = _beside(directory, "new"), _beside(directory, "old")
    if not directory.exists() and old.exists():
        # The old one is moved away only once the new one is complete.
        (new if new.exists() else old).rename(directory)
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def disk_problems_named(path: Path) -> Iterator[None]:
    """Turn a disk error (full, read-only, no permission) into an ``EnvironmentProblem``."""
    try:
        yield
    except OSError as error:
        is_full = error.errno == errno.ENOSPC
        raise EnvironmentProblem(
            f"cannot write {path}",
            why=f"{error.strerror or error}\nwhat was there before is kept",
            fix=("free some space" if is_full else "choose another --output")
            + ", then run the same command again",
        ) from error


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(f".{directory.name}.{suffix}")


def _flush(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    _flush_names(directory)


def _flush_names(directory: Path) -> None:
    if os.name == "nt":  # a directory cannot be opened there
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file; return an empty one if the file is missing or holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
