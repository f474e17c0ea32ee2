"""Packages that only some parts of pacl need."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from pacl.errors import EnvironmentProblem


def require_packages(names: Sequence[str], *, purpose: str) -> None:
    """Refuse to begin what would end at an import.

    Args:
        names: What must be importable.
        purpose: What they are for, as the subject of "needs".

    Raises:
        EnvironmentProblem: A package is missing.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"{purpose} needs {', '.join(missing)}", fix=f"pip install {' '.join(missing)}"
        )
