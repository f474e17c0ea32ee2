"""Our scores beside published ones, each with its source and protocol, as Markdown and CSV.

A set is a column, or a block of lines, only where this folder holds a score of ours for it.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacl.datasets.segmentation import NAMES
from pacl.evaluation.accuracy_tables import HEADER, accuracy_rows, write_accuracy_tables
from pacl.evaluation.metrics.component_sizes import SIZES
from pacl.evaluation.published import PUBLISHED
from pacl.evaluation.records import ScoreRecord, read_records
from pacl.runtime.files import write_atomically

if TYPE_CHECKING:
    from pacl.evaluation.alignment import AlignmentReport, Estimate

MARKDOWN, CSV = "results.md", "results.csv"
NOT_COMPARABLE = "NOT COMPARABLE"
_INTRODUCTION = """\
# Scores

mIoU in percent. "Measured" rows were computed here by `pacl evaluate`, from the file that each
names; all others are quoted from their sources, whose protocols differ. Rows marked NOT COMPARABLE
must not be held against published figures. A dash: not evaluated, or not published.
"""


BESIDE = ("classes of IoU 0", *(f"mIoU, {size} components" for size in SIZES))
"""What stands beside every mIoU."""
_BESIDE_INTRODUCTION = """\
## Beside the mIoU

Classes of the truth that are never found, and the mean IoU by size of connected components of the
truth, in [0, 1]: small below 1/300 of an image, large from 3/100 on. A class's false positives are
charged to its sizes in proportion to their pixels, so that the IoU of a class is the mean of its
sizes' IoUs by pixels (docs/benchmarks.md).
"""


@dataclass(frozen=True)
class _Row:
    """One line of the tables: figures of one method, one protocol, one source."""

    method: str
    backbone: str
    training: str
    protocol: str
    source: str
    is_ours: bool
    miou: dict[str, float]
    """Percent, by data set."""
    digest: str = ""
    """Hash of our protocol."""
    beside: tuple[str, ...] = ("",) * len(BESIDE)
    """As `_beside` returns it."""


def write_tables(directory: Path) -> list[Path]:
    """Write the tables of all scores in a folder: results.md and .csv, classification.md and .csv.

    Returns:
        The files written; a task without scores has none.

    Raises:
        EnvironmentProblem: The folder cannot be written.
    """
    by_task: dict[str, list[ScoreRecord]] = {}
    for record in read_records(directory):
        by_task.setdefault(record.task, []).append(record)
    paths = []
    if "segmentation" in by_task:
        paths += _write_segmentation(by_task["segmentation"], directory)
    if "classification" in by_task:
        paths += write_accuracy_tables(by_task["classification"], directory)
    return paths


def score_table(record: ScoreRecord) -> tuple[Sequence[str], list[list[str]]]:
    """The header and the lines that a screen shows of a record."""
    if record.task == "classification":
        return HEADER, accuracy_rows(record)
    if record.task == "retrieval":
        names = list(next(iter(record.rows.values())))
        recalls = [[way, *(_rate(row[name]) for name in names)] for way, row in record.rows.items()]
        return ["retrieval", *names], recalls
    if record.task == "open words":
        return _open_words_table(record)
    rows = list(record.rows.values())
    lines = [[label, *(_rate(row["iou"][label]) for row in rows)] for label in rows[0]["iou"]]
    named = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"}
    lines += [[words, *(_rate(row[key]) for row in rows)] for key, words in named.items()]
    lines += [list(line) for line in zip(BESIDE, *map(_beside, rows), strict=True)]
    return ["class", "IoU", "with PAMR"][: 1 + len(rows)], lines


def alignment_table(report: AlignmentReport) -> tuple[list[str], list[list[str]]]:
    """Return a header and a row per measure: frozen tokens, patch embeddings, their intervals."""
    interval = [f"{report.confidence:.0%} interval"] if report.n_resamples else []
    kinds = (report.frozen, report.embedded)
    measures = {
        "patch accuracy, all classes": [each.patch_accuracy_all for each in kinds],
        "patch accuracy, present classes": [each.patch_accuracy_present for each in kinds],
        "semantic coherence (AUROC)": [each.coherence_auroc for each in kinds],
    }
    rows = [
        [name, *(cell for each in of_kinds for cell in _cells(each)[: 1 + len(interval)])]
        for name, of_kinds in measures.items()
    ]
    return ["measure", "frozen", *interval, "embedded", *interval], rows


def _cells(estimate: Estimate) -> tuple[str, str]:
    if math.isnan(estimate.value):
        return "-", "-"
    return f"{estimate.value:.3f}", f"{estimate.low:.3f}-{estimate.high:.3f}"


def _open_words_table(record: ScoreRecord) -> tuple[Sequence[str], list[list[str]]]:
    named = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"}
    header = ["words chosen", *named.values(), *BESIDE]
    lines = [
        [name, *(_rate(row[key]) for key in named), *_beside(row)]
        for name, row in record.rows.items()
    ]
    details = record.details
    of_names = {
        "recall of names": _rate(details["recall_of_names"]),
        "precision of names": _rate(details["precision_of_names"]),
        "words per image": f"{details['words_per_image']:.1f}",
    }
    blank = [""] * (len(header) - 2)
    return header, [*lines, *([name, value, *blank] for name, value in of_names.items())]


def _beside(row: dict[str, Any]) -> list[str]:
    """The figures by BESIDE; a dash for what a record from before 2026-12 does not have."""
    n_zero = str(row.get("n_zero_iou", "-"))
    if "n_present" in row:
        n_zero += f" of {row['n_present']}"
    by_size = row.get("miou_by_size", {})
    return [n_zero, *(_rate(by_size.get(size)) for size in SIZES)]


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _write_segmentation(records: Sequence[ScoreRecord], directory: Path) -> list[Path]:
    records = sorted(records, key=lambda each: each.benchmark)
    ours = [row for record in records for row in _our_rows(record)]
    evaluated = _in_order({name for row in ours for name in row.miou})
    quoted = [
        _Row(
            method=row.method,
            backbone=row.backbone,
            training=row.training,
            protocol=row.protocol,
            source=row.source,
            is_ours=False,
            miou={name: row.miou[name] for name in evaluated if name in row.miou},
        )
        for row in PUBLISHED
    ]
    published = [row for row in quoted if row.miou]
    paths = [directory / MARKDOWN, directory / CSV]
    lines = [_as_markdown([*_merge(ours), *published], evaluated), *_beside_lines(records)]
    lines += _notes(records)
    write_atomically(paths[0], "\n".join(lines).encode())
    write_atomically(paths[1], _as_csv([*ours, *published], evaluated).encode())
    return paths


def _our_rows(record: ScoreRecord) -> Iterable[_Row]:
    subject = record.subject
    marks = [] if record.comparable else [NOT_COMPARABLE]
    marks += [] if subject.engine == "torch" else [f"engine {subject.engine}"]
    trained = " ".join(filter(None, ["trained embedder", subject.embedder]))
    untrained = "none" if subject.proxy is None else f"none, proxy {subject.proxy}"
    for name, scores in record.rows.items():
        if scores["miou"] is not None:
            yield _Row(
                method=subject.method,
                backbone=subject.model,
                training=trained if subject.has_embedder else untrained,
                protocol="; ".join([record.protocol["name"], name, *marks]),
                source="; ".join([f"measured, {record.file}", *record.warnings]),
                is_ours=True,
                miou={record.benchmark: 100 * scores["miou"]},
                digest=record.protocol["hash"],
                beside=tuple(_beside(scores)),
            )


def _merge(rows: Sequence[_Row]) -> list[_Row]:
    """One line for what differs in the data set only; several, where one set has several scores."""
    alike: dict[tuple[str | int, ...], list[_Row]] = {}
    n_scores: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        kind = (row.method, row.backbone, row.training, row.protocol)
        [name] = row.miou
        alike.setdefault((*kind, n_scores[*kind, name]), []).append(row)
        n_scores[*kind, name] += 1
    return [
        replace(
            group[0],
            miou={name: figure for row in group for name, figure in row.miou.items()},
            source="; ".join(dict.fromkeys(row.source for row in group)),
        )
        for group in alike.values()
    ]


def _beside_lines(records: Iterable[ScoreRecord]) -> Iterable[str]:
    """What stands beside every mIoU that was measured."""
    yield _BESIDE_INTRODUCTION
    header = ["data set", "method", "protocol", "mIoU", *BESIDE, "source"]
    yield _line(header)
    yield _line(["---"] * len(header))
    for record in records:
        for name, row in record.rows.items():
            protocol = f"{record.protocol['name']}; {name}"
            cells = [record.benchmark, record.subject.method, protocol, _rate(row["miou"])]
            yield _line([*cells, *_beside(row), record.file])
    yield ""


def _notes(records: Iterable[ScoreRecord]) -> Iterable[str]:
    """What our protocols leave open and where they knowingly differ from their authors'."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for record in records:
        name = f"{record.protocol['name']} on {record.benchmark}"
        found[name] = (record.protocol.get("unknown", []), record.protocol.get("notes", []))
    told = {name: parts for name, parts in found.items() if any(parts)}
    if told:
        yield "## Protocols\n"
    for name, (unknown, notes) in told.items():
        open_points = [f"not published, ours: {', '.join(unknown)}"] if unknown else []
        yield f"- {name}: {'; '.join([*open_points, *notes])}"
    if told:
        yield ""


def _in_order(names: set[str]) -> list[str]:
    return [*(name for name in NAMES if name in names), *sorted(names - set(NAMES))]


def _as_markdown(rows: Sequence[_Row], evaluated: Sequence[str]) -> str:
    header = ["method", "backbone", "training", *evaluated, "protocol", "source"]
    lines = [_line(header), _line(["---"] * len(header))]
    for row in rows:
        figures = [_figure(row.miou.get(name)) for name in evaluated]
        method = f"**{row.method}**" if row.is_ours else row.method
        lines.append(
            _line([method, row.backbone, row.training, *figures, row.protocol, row.source])
        )
    return "\n".join([_INTRODUCTION, *lines, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _figure(percent: float | None) -> str:
    return "–" if percent is None else f"{percent:.2f}".removesuffix("0")


def _as_csv(rows: Sequence[_Row], evaluated: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("benchmark", "method", "backbone", "training", "miou_percent", "is_ours",
                     "protocol", "protocol_hash", "source", *BESIDE))  # fmt: skip
    for name in evaluated:
        for row in sorted(rows, key=lambda row: not row.is_ours):
            if name in row.miou:
                writer.writerow((name, row.method, row.backbone, row.training,
                                 round(row.miou[name], 2), row.is_ours, row.protocol,
                                 row.digest, row.source, *row.beside))  # fmt: skip
    return text.getvalue()
