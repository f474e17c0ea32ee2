"""The runner: resuming to the same numbers, and what counts as scored before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from pacl.evaluation import run
from pacl.evaluation.records import (
    ScoreRecord,
    Subject,
    digest,
    file_stem,
    find_record,
    read_records,
    without_nan,
    write_json,
)
from pacl.evaluation.run import complete
from pacl.evaluation.tables import score_table, write_tables

SUBJECT = Subject("clip", None, "No trained embedder.", fingerprint="abc", method="CLIP")


class Interrupt(Exception):
    """Stands for Ctrl-C."""


class Sum:
    """Adds up 0..n_images-1."""

    def __init__(self, n_images: int, *keys: str, stop_at: int = -1) -> None:
        self.n_images, self.keys, self._stop_at = n_images, keys, stop_at
        self.n_done = self.total = 0

    def iter_scored(self) -> Iterator[str]:
        while self.n_done < self.n_images:
            self.total += self.n_done
            self.n_done += 1
            yield f"sum {self.total}"
            if self.n_done == self._stop_at:
                raise Interrupt

    def state(self) -> dict[str, np.ndarray]:
        return {"n_done": np.array(self.n_done), "total": np.array(self.total)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.n_done, self.total = int(state["n_done"]), int(state["total"])


def test_an_interrupted_run_resumes_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SAVE_EVERY_S", 0.0)
    path = tmp_path / "state.npz"
    with pytest.raises(Interrupt):
        complete(Sum(5, "a", stop_at=3), path)
    for other in (Sum(5, "b"), Sum(5, "b", "c")):
        kept = path.read_bytes()
        assert complete(other, path) == 0  # of other data, or another protocol
        path.write_bytes(kept)
    seen = []
    rest = Sum(5, "new form", "a")
    assert complete(rest, path, on_progress=lambda *each: seen.append(each)) == 3
    assert seen == [(4, 5, "sum 6"), (5, 5, "sum 10")]
    again = Sum(5, "new form")
    assert complete(again, path) == 5
    assert again.total == 10


@pytest.mark.parametrize("content", [None, b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_a_state_that_cannot_be_read_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "state.npz"
    if content is not None:
        path.write_bytes(content)
    scores = Sum(3, "a")
    assert complete(scores, path) == 0
    assert scores.total == 3


RECORD = ScoreRecord(
    task="segmentation",
    benchmark="street",
    subject=SUBJECT,
    protocol={"name": "own settings", "hash": "123"},
    rows={"without PAMR": {"miou": 0.5}},
    n_images=2,
    key="k",
    warnings=("few",),
    details={"resolved": {"logit_scale": 40.0}},
    file="street_own_clip.json",
)


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    classified = replace(
        RECORD, task="classification", details={"usual_metric": "top1"}, file="c.json"
    )
    for record in (RECORD, classified):
        write_json(record.to_json(), tmp_path / record.file)
    assert read_records(tmp_path) == [classified, RECORD]
    assert json.loads((tmp_path / "c.json").read_text())["settings"] == RECORD.protocol


def test_what_was_scored_before(tmp_path: Path) -> None:
    write_json(RECORD.to_json(), tmp_path / RECORD.file)
    write_json({"benchmark": "street", "miou": 0.5}, tmp_path / "other.json")
    (tmp_path / "broken.json").write_text("{")
    assert find_record(tmp_path, "street", SUBJECT, ("new", "k")) == RECORD
    assert find_record(tmp_path, "street", SUBJECT, ("new",)) is None
    assert find_record(tmp_path, "field", SUBJECT, ("k",)) is None
    for name in ("model", "embedder", "description"):
        other = replace(SUBJECT, **{name: "another"})
        assert find_record(tmp_path, "street", other, ("k",)) is None
    renewed = replace(SUBJECT, fingerprint="of another form")  # the key decides
    assert find_record(tmp_path, "street", renewed, ("k",)) == RECORD


def test_files_from_before_there_was_a_task(tmp_path: Path) -> None:
    settings = {"prompts": [["cat"]], "weights": "abc"}
    values = {"benchmark": "pets", "model": "clip", "embedder": None, "description": "a CLIP",
              "pacl": "0.1.0", "title": "Pets", "usual_metric": "top1", "warnings": [],
              "settings": settings, "n_images": 3, "rows": {}, "fusion": {}}  # fmt: skip
    record = ScoreRecord.from_json(values, file="pets.json")
    assert (record.task, record.key) == ("classification", digest(settings))
    assert record.details == {"title": "Pets", "usual_metric": "top1", "fusion": {}}
    assert record.to_json().items() >= values.items()
    subject = asdict(SUBJECT)
    del subject["baseline"]
    values = {"benchmark": "voc20", **subject, "root": "data", "warnings": [], "comparable": True,
              "protocol": {"hash": "1"}, "rows": {}, "n_images": 3, "seconds": 2.0, "key": "k",
              "file": "voc20.json", "miou": 0.5}  # fmt: skip
    record = ScoreRecord.from_json(values, file="voc20.json")
    assert (record.task, record.key, record.subject) == ("segmentation", "k", SUBJECT)
    assert record.details == {"miou": 0.5}


def test_tables_of_records_without_sizes_of_components(tmp_path: Path) -> None:
    record = replace(RECORD, protocol={"name": "own settings", "hash": "1"})
    row = {"iou": {"cat": 0.5}, "miou": 0.5, "pixel_accuracy": 0.5, "mean_accuracy": 0.5}
    for rows in ({"without PAMR": row}, {"without PAMR": row | {"n_zero_iou": 0}}):
        old = replace(record, rows=rows)
        write_json(old.to_json(), tmp_path / old.file)
        write_tables(tmp_path)
        _, lines = score_table(old)
        n_zero = str(rows["without PAMR"].get("n_zero_iou", "-"))
        assert [line[1] for line in lines[-4:]] == [n_zero, "-", "-", "-"]
        assert f"| 0.500 | {n_zero} | - | - | - | {old.file} |" in (
            tmp_path / "results.md"
        ).read_text(encoding="utf-8")


def test_names_of_files() -> None:
    assert file_stem("voc20", "own", "runs/a b", "") == "voc20_own_runs-a-b"


def test_nan_becomes_null() -> None:
    nan = float("nan")
    assert without_nan({"a": nan, "b": (1.0, [nan])}) == {"a": None, "b": [1.0, [None]]}
