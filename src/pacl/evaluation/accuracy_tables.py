"""The tables of zero-shot classification: on the screen, as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pacl.evaluation.records import ScoreRecord
from pacl.runtime.files import write_atomically

HEADER = ("set", "model", "images", "classes", "score", "top-1", "top-5", "mean per class",
          "usual")  # fmt: skip
_EXPLANATION = """\
Zero-shot classification, in percent. "usual" is what is usually reported of the set. clip is CLIP's
own cosine, pacl the compatibility of the patches, fusion their weighted mean; its weight, CLIP's
share, was chosen on training images, or is 0.5 where there were none. Which sets the PACL paper
used is unknown; these are ours."""


def accuracy_rows(record: ScoreRecord) -> list[list[str]]:
    """One line per score, as HEADER has them: CLIP, PACL, fusion; PACL alone without a CLIP."""
    usual = {"top1": "top-1", "mean_per_class": "mean"}[record.details["usual_metric"]]
    fusion = record.details["fusion"]
    named: dict[str, str] = {}
    if fusion is not None:
        how = f"chosen on {fusion['n_images']:,}" if fusion["n_images"] else "fixed"
        named["fusion"] = f"fusion, CLIP's share {fusion['clip_share']:.2f}, {how}"
    return [
        [
            record.benchmark,
            " ".join(filter(None, [record.subject.model, record.subject.embedder])),
            f"{record.n_images:,}",
            f"{len(record.protocol['prompts']):,}",
            named.get(score, score),
            *(_percent(rates[name]) for name in ("top1", "top5", "mean_per_class")),
            usual,
        ]
        for score, rates in record.rows.items()
    ]


def write_accuracy_tables(records: Sequence[ScoreRecord], output: Path) -> list[Path]:
    """Write classification.csv and .md, with what is odd about the data."""
    header = [*HEADER, "note"]
    rows = [
        [*row, "; ".join(record.warnings)] for record in records for row in accuracy_rows(record)
    ]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    lines = [header, ["---"] * len(header), *rows]
    marked = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    paths = [output / "classification.md", output / "classification.csv"]
    write_atomically(paths[0], f"{_EXPLANATION}\n\n{marked}".encode())
    write_atomically(paths[1], text.getvalue().encode())
    return paths


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2f}"
