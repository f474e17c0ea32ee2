"""What a model's name means: a directory here, or a hub id."""

from __future__ import annotations

from pathlib import Path

from pacl.errors import InputError

CONFIG = "config.json"
STORYBOOK = "storybook"
PACKAGE = Path(__file__).resolve().parents[1]


def find_source(source: str | Path) -> str | Path:
    """Find what a model's name stands for: a directory, or else a hub id, given back as it is.

    A relative path is looked for in the working directory and then where pacl lies, so that
    models/storybook means the same everywhere. Of a run's output, best/ or else last/ is taken.
    """
    path = Path("models", STORYBOOK) if str(source) == STORYBOOK else Path(source).expanduser()
    for root in (Path(), PACKAGE.parents[1], PACKAGE):
        if (root / path).is_dir():
            return newest_checkpoint(root / path)
    if str(source) == STORYBOOK:
        raise InputError(
            "the storybook model is not there",
            why=f"looked for {path} in the repository and in the installed package",
        )
    return source


def newest_checkpoint(directory: Path) -> Path:
    """Of a run's output directory, best/ or else last/; any other directory as it is."""
    if not (directory / CONFIG).is_file():
        for name in ("best", "last"):
            if (directory / name / CONFIG).is_file():
                return directory / name
    return directory
