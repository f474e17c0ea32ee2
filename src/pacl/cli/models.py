"""pacl models."""

from __future__ import annotations

import json as jsons
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacl.cli.console import DONE, result, say, table
from pacl.errors import InputError
from pacl.runtime.files import read_json_object


@dataclass(frozen=True)
class ListModels:
    """List the models that --model accepts here: the embedded one and those in local runs."""

    runs: Path = Path("runs")
    """Folder that is searched for training runs."""

    json: bool = False
    """Print JSON in place of the table."""


def list_models(options: ListModels) -> int:
    """Print every model found, with the word that --model takes."""
    from pacl.modeling.names import STORYBOOK, find_source

    rows = []
    try:
        embedded = Path(find_source(STORYBOOK))
        rows += [_describe_checkpoint(embedded, name=STORYBOOK)]
    except InputError as error:
        say(f"error: {error}")
    rows += [_describe_checkpoint(path, name=str(path)) for path in _iter_runs(options.runs)]
    rows = [row for row in rows if row is not None]
    if options.json:
        result(jsons.dumps(rows, indent=1))
    elif rows:
        result(table(list(rows[0]), [list(map(str, row.values())) for row in rows]))
    say("any CLIP's hub id or local directory in Hugging Face format is a model as well")
    if rows:
        say(f'next: pacl segment PHOTOS --labels "sky,road" --model {rows[-1]["model"]}')
    return DONE


def _iter_runs(root: Path) -> Iterator[Path]:
    """Directories of training runs: those with a checkpoint in last/."""
    yield from sorted(path.parent.parent for path in root.glob("**/last/config.json"))


def _describe_checkpoint(directory: Path, *, name: str) -> dict[str, Any] | None:
    """One row; none for a directory that holds something else."""
    last = directory / "last"
    config = read_json_object((last if last.is_dir() else directory) / "config.json")
    if config.get("format") == "pacl":
        kind, encoder = "PACL embedder", config.get("encoder", "?")
    elif config.get("model_type") == "clip":
        has_embedder = (directory / "pacl" / "config.json").is_file()
        kind, encoder = "CLIP with PACL embedder" if has_embedder else "CLIP", "-"
    else:
        return None
    steps = read_json_object(last / "trainer.json").get("step", "-")
    return {"model": name, "kind": kind, "of": encoder, "steps": steps}
