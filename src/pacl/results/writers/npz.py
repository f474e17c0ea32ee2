"""All arrays of a result, as numpy stores them."""

from __future__ import annotations

import io

import numpy as np

from pacl.results.writers.writer import Result


def encode_npz(result: Result) -> bytes:
    """Return the content of an npz file: label_map, scores, class_scores and labels."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        label_map=result.label_map,
        scores=result.scores,
        class_scores=result.class_scores,
        labels=np.array(result.labels),
    )
    return buffer.getvalue()
