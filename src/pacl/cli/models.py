"""pacl models."""

from __future__ import annotations

import json as jsons
from dataclasses import dataclass
from pathlib import Path

from pacl.cli.console import DONE, result, say, table


@dataclass(frozen=True)
class ListModels:
    """List the models that --model accepts: the embedded one and those of local runs."""

    runs: Path = Path("runs")
    """Folder to search for training runs."""

    json: bool = False
    """Print JSON in place of the table."""


def list_models(options: ListModels) -> int:
    """Print every model found, with its name for --model."""
    from pacl.modeling.names import describe_models

    rows = describe_models(options.runs)
    if options.json:
        result(jsons.dumps(rows, indent=1))
    elif rows:
        result(table(list(rows[0]), [list(map(str, row.values())) for row in rows]))
    say("any CLIP's hub id or local directory in Hugging Face format is a model as well")
    if rows:
        say(f'next: pacl segment PHOTOS --labels "sky,road" --model {rows[-1]["model"]}')
    return DONE
