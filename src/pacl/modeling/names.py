"""What a model's name means: a directory here, or a hub id."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from pacl.errors import InputError
from pacl.runtime.files import read_json_object

CONFIG = "config.json"
STORYBOOK = "storybook"
DEFAULT_ENGINE = "torch"
PACKAGE = Path(__file__).resolve().parents[1]


def find_source(source: str | Path) -> str | Path:
    """Find what a model's name means: a directory, or else a hub id, returned as it is.

    A relative path is looked for in the working directory and then where pacl lies, so that
    models/storybook means the same everywhere. Of a run's output, best/ or else last/ is taken.

    Raises:
        InputError: The embedded model is asked for and not there.
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
    """Return best/, or else last/, of a run's output directory; any other directory as it is."""
    if not (directory / CONFIG).is_file():
        for name in ("best", "last"):
            if (directory / name / CONFIG).is_file():
                return directory / name
    return directory


def describe_models(runs: Path) -> list[dict[str, Any]]:
    """Describe the models at hand: the embedded one, and those of training runs.

    Args:
        runs: Folder that is searched, with all its subfolders, for runs with a checkpoint.

    Returns:
        Per model its name, kind, CLIP or pair of towers, and steps of training.
    """
    found = [(path.parents[1], str(path.parents[1])) for path in runs.glob("**/last/config.json")]
    found.sort()
    with suppress(InputError):  # the embedded model is not made yet
        found.insert(0, (Path(find_source(STORYBOOK)), STORYBOOK))
    rows = (_describe_checkpoint(directory, name) for directory, name in found)
    return [row for row in rows if row is not None]


def _describe_checkpoint(directory: Path, name: str) -> dict[str, Any] | None:
    """One row; None for a directory that holds something else."""
    last = directory / "last"
    config = read_json_object((last if last.is_dir() else directory) / CONFIG)
    if config.get("format") == "pacl":
        towers = (config.get(name) for name in ("encoder", "vision", "text"))
        kind, encoder = "PACL embedder", " and ".join(dict.fromkeys(filter(None, towers))) or "?"
    elif config.get("model_type") == "clip":
        has_embedder = (directory / "pacl" / CONFIG).is_file()
        kind, encoder = "CLIP with PACL embedder" if has_embedder else "CLIP", "-"
    else:
        return None
    steps = read_json_object(last / "trainer.json").get("step", "-")
    return {"model": name, "kind": kind, "of": encoder, "steps": steps}
