"""Files derived from another: beside it, or in the cache folder where that place is read-only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from pacl.errors import EnvironmentProblem


def derived_places(path: Path, ending: str) -> tuple[Path, Path]:
    """Return the two places of a file that is derived from `path`, the one beside it first."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    return path.with_name(path.name + ending), root / "pacl" / "indices" / (name + ending)


def write_derived(path: Path, ending: str, write: Callable[[Path], None]) -> Path:
    """Write the file that is derived from `path`.

    Args:
        path: What it is derived from.
        ending: What its name adds.
        write: Writes to the place that it is given.

    Returns:
        Where it was written.

    Raises:
        EnvironmentProblem: Neither place can be written to.
    """
    beside, in_cache = derived_places(path, ending)
    try:
        write(beside)
    except EnvironmentProblem:
        write(in_cache)
        return in_cache
    return beside
