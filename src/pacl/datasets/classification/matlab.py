"""Reading MATLAB files, which Flowers-102, Stanford Cars and ImageNet's kit keep their lists in.

The only file that imports scipy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pacl.errors import EnvironmentProblem, InputError


def load_mat(path: Path, *, download: str) -> dict[str, Any]:
    """The variables of a MATLAB file, without singleton dimensions.

    Raises:
        InputError: It is missing or damaged.
        EnvironmentProblem: The package scipy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise EnvironmentProblem(
            "scipy is not installed",
            why=f"{path.name} is a MATLAB file",
            fix="pip install scipy",
        ) from error
    if not path.is_file():
        raise InputError(f"the MATLAB file is missing: {path}", fix=download)
    try:
        return loadmat(path, squeeze_me=True)
    except Exception as error:  # its parser raises whatever it stumbles on
        raise InputError(f"cannot read {path}", why=str(error), fix=download) from error


def numbers(variables: Mapping[str, Any], name: str) -> np.ndarray:
    """A variable as a flat array of whole numbers.

    Raises:
        InputError: The file has no such variable.
    """
    return np.atleast_1d(_variable(variables, name)).astype(np.int64).ravel()


def records(variables: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A struct array as one dict per element.

    Raises:
        InputError: The file has no such variable.
    """
    rows = np.atleast_1d(_variable(variables, name))
    return [{field: row[field] for field in rows.dtype.names or ()} for row in rows]


def texts(variables: Mapping[str, Any], name: str) -> list[str]:
    """A cell array of texts.

    Raises:
        InputError: The file has no such variable.
    """
    return [str(text) for text in np.atleast_1d(_variable(variables, name))]


def _variable(variables: Mapping[str, Any], name: str) -> Any:
    if name not in variables:
        found = ", ".join(key for key in variables if not key.startswith("__"))
        raise InputError(f"the MATLAB file has no variable {name!r}", why=f"found: {found}")
    return variables[name]
