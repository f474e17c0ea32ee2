"""pacl models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pacl.cli.console import DONE, result, result_json, say, table


@dataclass(frozen=True)
class ListModels:
    """List what --model accepts, and with --towers what --vision and --text accept."""

    runs: Path = Path("runs")
    """Folder to search for training runs and towers."""

    towers: bool = False
    """List frozen towers, of the folder and of the hub's cache, in place of models."""

    json: bool = False
    """Print JSON in place of the table."""


def list_models(options: ListModels) -> int:
    """Print every model found, with its name for --model."""
    if options.towers:
        from pacl.modeling.towers.listing import describe_towers as describe
    else:
        from pacl.modeling.names import describe_models as describe
    rows = describe(options.runs)
    if options.json:
        result_json(rows)
    elif rows:
        result(table(list(rows[0]), [list(map(str, row.values())) for row in rows]))
    if options.towers:
        say("any hub id or directory of these families is a tower as well, see docs/towers.md")
        return DONE
    say("any CLIP's hub id or local directory in Hugging Face format is a model as well")
    if rows:
        say(f'next: pacl segment PHOTOS --labels "sky,road" --model {rows[-1]["model"]}')
    return DONE
