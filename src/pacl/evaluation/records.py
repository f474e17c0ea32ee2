"""What a score is kept as: one JSON file per model, data set and protocol."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

from pacl.api import Model, is_on_storybook
from pacl.runtime.files import read_json_object, write_atomically

DRAWN_ONLY = "means nothing: the backbone has seen drawn scenes only"
MEANINGLESS = (
    "these numbers mean nothing yet: the backbone is the small Storybook model, which has seen "
    "drawn scenes only, and these are other images\n"
    "  use a CLIP that has seen photographs: --model openai/clip-vit-base-patch16"
)
METHODS = {
    "clip": "CLIP",
    "features": "own tokens",
    "maskclip": "MaskCLIP",
    "sclip": "SCLIP",
    "clearclip": "ClearCLIP",
    "naclip": "NACLIP",
    "scclip": "SC-CLIP",
    "rfclip": "RF-CLIP",
    "proxyclip": "ProxyCLIP",
}
"""Names of the training-free methods by the kind of their patch tokens."""


def drawn_only(model: Model, *, is_drawn: bool) -> tuple[str, ...]:
    """Return the warning for scores of the Storybook model on images that are not drawn."""
    return (DRAWN_ONLY,) if is_on_storybook(model) and not is_drawn else ()


@dataclass(frozen=True)
class Subject:
    """The model that is scored: as the user named it, and as it is."""

    model: str
    embedder: str | None
    description: str
    baseline: str | None = None
    """Kind of tokens of a training-free method that was asked for in place of an embedder."""
    method: str = ""
    """As in tables: "PACL", or a training-free method's name."""
    has_embedder: bool = True
    fingerprint: str = ""
    """Identifies everything that decides its scores."""
    device: str = ""
    engine: str = "torch"
    pacl: str = ""
    torch: str = ""
    proxy: str | None = None
    """ProxyCLIP's second vision tower, as the user named it."""

    def words(self) -> tuple[str, ...]:
        """What distinguishes it from other models in a file's name."""
        return self.model, self.embedder or self.baseline or "", self.proxy or ""


def describe_subject(
    model: Model,
    *,
    name: str,
    embedder: str | None = None,
    baseline: str | None = None,
    engine: str = "torch",
    proxy: str | None = None,
) -> Subject:
    """Say what is scored.

    Args:
        model: The loaded model.
        name: What the user called it.
        embedder: The user's name of an embedder that was put on it.
        baseline: The training-free method that was asked for in its place.
        engine: What runs the encoder.
        proxy: The second vision tower of ProxyCLIP.
    """
    pacl = model.pacl
    return Subject(
        model=name,
        embedder=embedder,
        description=model.describe(),
        baseline=baseline,
        method="PACL" if pacl.has_embedder else METHODS[pacl.token_kind],
        has_embedder=pacl.has_embedder,
        fingerprint=model.fingerprint,
        device=str(pacl.device),
        engine=engine,
        pacl=metadata.version("pacl"),
        torch=torch.__version__,
        proxy=proxy,
    )


@dataclass(frozen=True)
class ScoreRecord:
    """The scores of one model on one data set under one protocol."""

    task: Literal["segmentation", "classification", "retrieval", "open words"]
    benchmark: str
    """The data set's name, as in tables."""
    subject: Subject
    protocol: dict[str, Any]
    """JSON values: every setting that decides the numbers besides model and data."""
    rows: dict[str, dict[str, Any]]
    """Figures by the name of the result; rates in [0, 1], None where there is none."""
    n_images: int
    key: str
    """Equal only for the same protocol, data and model."""
    root: str = ""
    seconds: float = 0.0
    comparable: bool = False
    """Whether it may stand beside published figures."""
    warnings: tuple[str, ...] = ()
    """What makes it the score of something else than its name says."""
    details: dict[str, Any] = field(default_factory=dict)
    """JSON values that one task alone reports, such as the weight of a fusion."""
    file: str = ""
    """The name of the file that holds it."""

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values; the fields of `subject` and `details` stand beside its own."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        values = asdict(own.pop("subject")) | own.pop("details") | own
        values["warnings"] = list(self.warnings)
        values[_PROTOCOL[self.task]] = values.pop("protocol")
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any], *, file: str) -> ScoreRecord:
        """Read what `to_json` gave, or what pacl wrote before there was a task in the files.

        Args:
            values: A file's content.
            file: The file's name.

        Raises:
            KeyError: These are no scores.
            TypeError: Likewise.
        """
        rest = dict(values)
        task = rest.pop("task", "classification" if "usual_metric" in rest else "segmentation")
        protocol = rest.pop(_PROTOCOL[task])
        subject = {each.name: rest.pop(each.name) for each in fields(Subject) if each.name in rest}
        own: dict[str, Any] = {
            each.name: rest.pop(each.name) for each in fields(cls) if each.name in rest
        }
        own.setdefault("key", digest(protocol))
        own |= {"warnings": tuple(own["warnings"]), "file": file}
        parts = {"subject": Subject(**subject), "protocol": protocol, "details": rest}
        return cls(task=task, **own, **parts)


_PROTOCOL = {
    "segmentation": "protocol",
    "classification": "settings",
    "retrieval": "protocol",
    "open words": "protocol",
}
"""What the files call the protocol of each task."""


def read_records(output: Path) -> list[ScoreRecord]:
    """All scores in a folder, by file name; files that hold something else are passed over."""
    records = []
    for path in sorted(output.glob("*.json")):
        try:
            records.append(ScoreRecord.from_json(read_json_object(path), file=path.name))
        except (KeyError, TypeError):
            continue
    return records


def find_record(
    output: Path, benchmark: str, subject: Subject, keys: Sequence[str]
) -> ScoreRecord | None:
    """The record in a folder that holds these scores already.

    Args:
        output: The folder.
        benchmark: The data set's name.
        subject: The model, which must have been called and described alike.
        keys: Any of them identifies model, data and protocol; several where older files have
            another form of it.
    """
    wanted = (benchmark, subject.model, subject.embedder, subject.description)
    for record in read_records(output):
        its = record.subject
        named = (record.benchmark, its.model, its.embedder, its.description)
        if named == wanted and record.key in keys:
            return record
    return None


def file_stem(*words: str) -> str:
    """Words as the beginning of a file's name, which any file system takes."""
    return "_".join(re.sub(r"[^\w.]+", "-", word).strip("-.") for word in words if word)


def write_json(content: Any, path: Path) -> None:
    """Write JSON for people to read, whole or not at all."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def digest(content: Any) -> str:
    """SHA-256 of a JSON value, in hex."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def without_nan(value: Any) -> Any:
    """The value with null for nan, which JSON does not have, at any depth."""
    if isinstance(value, dict):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
