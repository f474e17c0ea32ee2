"""Areas and mean scores as JSON."""

from __future__ import annotations

import json

from pacl.results.writers.writer import Result


def encode_json(result: Result) -> bytes:
    """Return the content of a JSON file: what `Segmentation.summary` holds."""
    return json.dumps(result.summary(), indent=1, ensure_ascii=False).encode()
