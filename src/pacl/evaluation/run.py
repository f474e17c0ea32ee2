"""Score a model on data sets: skip what was scored before, resume what was interrupted.

One runner for every task. A task brings a `Measurement`, which knows the words and the figures;
the counts it makes (`Scores`) can be kept after any batch and taken up by a later run.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np

from pacl.api import Model
from pacl.datasets.classification import ClassificationSet
from pacl.errors import InputError
from pacl.evaluation.accuracy import measure_classification
from pacl.evaluation.open_words import measure_open_words
from pacl.evaluation.plan import DataSet, Note, Progress, Settings, ShowProgress
from pacl.evaluation.records import (
    DRAWN_ONLY,
    MEANINGLESS,
    ScoreRecord,
    Subject,
    find_record,
    write_json,
)
from pacl.evaluation.retrieval import RetrievalSet, measure_retrieval
from pacl.evaluation.segmentation import measure_segmentation
from pacl.evaluation.tables import write_tables
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers import TextTower, VisionTower
from pacl.modeling.towers.families import PLAIN_KIND
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.proxy import ProxyClip
from pacl.runtime.files import write_atomically

SAVE_EVERY_S = 10.0
_WHY_NOT = {
    "rfclip": "rfclip's channels are published for OpenAI's ViT-B and ViT-L only",
    "scclip": "SC-CLIP walks through the blocks of a CLIP",
    "proxyclip": "ProxyCLIP mixes the values of a CLIP's last block",
}


class Scores(Protocol):
    """Counts over the images of a data set, one image after the other."""

    @property
    def keys(self) -> tuple[str, ...]:
        """What these counts are of; the first, or one of its older forms."""
        ...

    @property
    def n_images(self) -> int:
        """Images in all."""
        ...

    @property
    def n_done(self) -> int:
        """Images counted."""
        ...

    def iter_scored(self) -> Iterator[str]:
        """Count the images that are not done; after each batch, yields a few words on it."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """All counts, to be kept."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up counts; raises KeyError or ValueError where they do not fit."""
        ...


class Measurement(Protocol):
    """Scores with their words: of which model, on which data set, under which protocol."""

    @property
    def benchmark(self) -> str:
        """The data set's name, as in tables."""
        ...

    @property
    def subject(self) -> Subject:
        """The model."""
        ...

    @property
    def stem(self) -> str:
        """Beginning of the names of its files."""
        ...

    @property
    def scores(self) -> Scores:
        """What is counted."""
        ...

    def describe(self) -> str:
        """The protocol in a few lines, to stand above the score."""
        ...

    def record(self, output: Path) -> ScoreRecord:
        """The finished scores; images to look at are written into the folder."""
        ...


def as_baseline(
    model: Model, token_kind: str, *, engine: str, proxy: VisionTower | None = None
) -> Model:
    """The training-free method with these patch tokens, on a model's frozen towers.

    Args:
        model: Anything on a CLIP, or on both halves of a model whose patch tokens lie in its
            texts' space.
        token_kind: The method; "clip" is the tower's own tokens.
        engine: What runs the vision tower.
        proxy: The second tower that ProxyCLIP needs; None for every other method.

    Raises:
        InputError: The towers have no joint space, or the method makes no sense on them.
    """
    pacl = model.pacl
    vision: VisionTower = pacl.vision if pacl.shares_space else pacl.encoder
    text: TextTower = pacl.text
    if proxy is not None and isinstance(vision, HfClip):
        vision = text = ProxyClip(vision, proxy)
    own = vision.token_kinds[0]
    kind = own if token_kind == "clip" else token_kind
    if kind not in vision.token_kinds:
        kinds = ("clip" if each == own == PLAIN_KIND else each for each in vision.token_kinds)
        raise InputError(
            f"no baseline {token_kind} on {vision.source}",
            why=_WHY_NOT.get(token_kind, "this tower has no attention of that kind"),
            fix=f"one of: {', '.join(kinds)}",
        )
    baseline = Model(Pacl(vision=vision, text=text, embedder=None, token_kind=kind))
    baseline.pacl.use_engine(engine)
    return baseline


def build_measurement(
    opened: DataSet, model: Model, subject: Subject, settings: Settings
) -> Measurement:
    """Put together a data set, a model and a protocol; the words are encoded now.

    Raises:
        InputError: The protocol does not exist, or does not fit the encoder's patches.
    """
    if isinstance(opened, ClassificationSet):
        return measure_classification(
            opened,
            model,
            subject,
            templates=settings.templates,
            patch_stride_px=settings.segmenting.patch_stride_px,
            batch_size=settings.segmenting.batch_size,
        )
    if isinstance(opened, RetrievalSet):
        return measure_retrieval(opened, model, subject, batch_size=settings.segmenting.batch_size)
    if settings.is_open:
        return measure_open_words(
            opened, model, subject, config=settings.segmenting, words=settings.words
        )
    return measure_segmentation(
        opened,
        model,
        subject,
        preset=settings.preset,
        config=settings.segmenting,
        use_pamr=settings.use_pamr,
        use_profile=settings.use_profile,
    )


def score(
    measurement: Measurement, output: Path, *, note: Note, progress: Progress, again: bool = False
) -> ScoreRecord:
    """Score, or find the scores of an earlier run; keep them and bring the tables up to date.

    Args:
        measurement: What is to be scored.
        output: Folder of the records, the tables and the images to look at.
        note: Told what a user should know.
        progress: Shows how far it is.
        again: Whether to score what was scored before.

    Raises:
        InputError: An image or a mask cannot be read: a score over some of the images would be
            of another data set.
        EnvironmentProblem: The folder cannot be written.
    """
    scores = measurement.scores
    record = find_record(output, measurement.benchmark, measurement.subject, scores.keys)
    if record is not None and not again:
        note(f"scored before, in {output / record.file}")
        written: list[Path] = []
    else:
        state_path = output / f".{measurement.stem}.unfinished.npz"
        with progress(f"evaluate {measurement.benchmark}") as show:
            n_resumed = complete(scores, state_path, on_progress=show)
        if n_resumed:
            note(f"resumed after {n_resumed:,} images of an interrupted run")
        record = measurement.record(output)
        write_json(record.to_json(), output / record.file)
        state_path.unlink(missing_ok=True)
        written = [output / record.file]
    written += write_tables(output)
    note(f"wrote {', '.join(map(str, written))}")
    samples = [each["file"] for each in record.details.get("pictures", {}).values()]
    if samples:
        note(f"look at (ours left, truth right): {', '.join(dict.fromkeys(samples))}")
    if DRAWN_ONLY in record.warnings:
        note(f"note: {MEANINGLESS}")
    return record


def complete(scores: Scores, state_path: Path, *, on_progress: ShowProgress | None = None) -> int:
    """Count all images, from where an interrupted run of the same key stopped.

    Args:
        scores: The counts.
        state_path: Keeps them every SAVE_EVERY_S seconds; at the end it holds all of them, to be
            removed once the result is kept.
        on_progress: Called after each batch.

    Returns:
        The images that the interrupted run had counted.
    """
    n_resumed = scores.n_done if _resume(scores, state_path) else 0
    saved_s = time.perf_counter()
    for words in scores.iter_scored():
        if on_progress is not None:
            on_progress(scores.n_done, scores.n_images, words)
        if time.perf_counter() - saved_s >= SAVE_EVERY_S:
            _save(scores, state_path)
            saved_s = time.perf_counter()
    _save(scores, state_path)
    return n_resumed


def _save(scores: Scores, path: Path) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"key": np.array(scores.keys[0]), **scores.state()}
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def _resume(scores: Scores, path: Path) -> bool:
    """Take up the counts of a file of the same key; one that cannot be read counts as none."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as state:
            if str(state["key"]) not in scores.keys:
                return False
            scores.restore(state)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # none, or damaged
        return False
    return True
