"""Where engines keep what takes time to make."""

from __future__ import annotations

import os
from pathlib import Path


def graph_dir(cache_dir: Path | None = None) -> Path:
    """Return the given directory, or pacl/engines in $XDG_CACHE_HOME or ~/.cache."""
    if cache_dir is None:
        cache_dir = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "pacl", "engines")
    return cache_dir.expanduser()
