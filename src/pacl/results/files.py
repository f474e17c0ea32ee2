"""Writing a file so that a reader sees either all of it or none of it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from pacl.errors import EnvironmentProblem


def write_atomically(path: Path, content: bytes) -> None:
    """Write content to path: a temporary file beside it, flushed to disk, then renamed.

    Raises:
        EnvironmentProblem: the disk is full or the place may not be written; what was at path
            before is still there.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # temporary files are private; results are for sharing
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> EnvironmentProblem:
    fix = "free some space" if error.errno == errno.ENOSPC else "choose another output folder"
    return EnvironmentProblem(f"cannot write {path}", why=error.strerror or str(error), fix=fix)
