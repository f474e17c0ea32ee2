"""The tables of zero-shot classification: on the screen, as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pacl.runtime.files import write_atomically

HEADER = ("set", "model", "images", "classes", "score", "top-1", "top-5", "mean per class",
          "usual")  # fmt: skip
_EXPLANATION = """\
Zero-shot classification, in percent. "usual" is what is usually reported of the set. clip is CLIP's
own cosine, pacl the compatibility of the patches, fusion their weighted mean; its weight, CLIP's
share, was chosen on training pictures, or is 0.5 where there were none. Which sets the PACL paper
used is unknown; these are ours."""


def accuracy_rows(contents: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Three lines per set, as HEADER has them: CLIP, PACL, fusion.

    Args:
        contents: What the JSON files of the sets hold.
    """
    return [row[:-1] for content in contents for row in _iter_rows(content)]


def write_tables(contents: Sequence[dict[str, Any]], output: Path) -> None:
    """Write the same as classification.csv and .md, with what is odd about the data."""
    header = (*HEADER, "note")
    rows = [row for content in contents for row in _iter_rows(content)]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([header, *rows])
    write_atomically(output / "classification.csv", text.getvalue().encode())
    lines = [header, ["---"] * len(header), *rows]
    marked = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    write_atomically(output / "classification.md", f"{_EXPLANATION}\n\n{marked}".encode())


def _iter_rows(content: dict[str, Any]) -> Iterator[list[str]]:
    """The lines of the table for one set: CLIP, PACL, fusion."""
    usual = {"top1": "top-1", "mean_per_class": "mean"}[content["usual_metric"]]
    n_classes = len(content["settings"]["prompts"])
    for score, rates in content["rows"].items():
        fusion = content["fusion"]
        how = f"chosen on {fusion['n_images']:,}" if fusion["n_images"] else "fixed"
        note = "; ".join(content["warnings"])
        is_fusion = score == "fusion"
        yield [
            content["benchmark"],
            " ".join(filter(None, [content["model"], content["embedder"]])),
            f"{content['n_images']:,}",
            f"{n_classes:,}",
            f"fusion, CLIP's share {fusion['clip_share']:.2f}, {how}" if is_fusion else score,
            *(_percent(rates[name]) for name in ("top1", "top5", "mean_per_class")),
            usual,
            note,
        ]


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2f}"
