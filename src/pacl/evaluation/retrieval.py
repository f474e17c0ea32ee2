"""Scoring retrieval: each caption finds its image among all, each image one of its captions.

Scores are the model's compatibility, exact, of every image with every caption; the matrix is held.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pacl.api import Model
from pacl.data.pairs import Pairs, read_pairs
from pacl.data.prefetch import N_THREADS, prefetch
from pacl.evaluation.metrics.retrieval import image_to_text_ranks, recalls, text_to_image_ranks
from pacl.evaluation.records import ScoreRecord, Subject, digest, drawn_only, file_stem
from pacl.text.cleaning import cleaning_mark


@dataclass(frozen=True, eq=False)
class RetrievalSet:
    """A table of captions."""

    path: Path
    pairs: Pairs

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes a score one of a part of the table."""
        n_skipped = self.pairs.report.n_skipped
        return (f"{n_skipped:,} rows of {self.path} were skipped",) if n_skipped else ()

    @property
    def is_drawn(self) -> bool:
        """Whether its images are Storybook's."""
        return (self.path.parent / "storybook.json").is_file()


def open_retrieval(path: str) -> RetrievalSet:
    """Read a table of image files and captions, see `pacl.data.pairs.read_pairs`."""
    return RetrievalSet(Path(path), read_pairs(path))


class RetrievalScores:
    """Compatibilities of the images that are done with all captions.

    Attributes:
        keys: Identify model and data.
        seconds: Time spent so far, in earlier runs too.
    """

    def __init__(self, model: Model, pairs: Pairs, *, batch_size: int = 8) -> None:
        self._texts = [text for texts in pairs.captions for text in texts]
        identity = model.fingerprint + cleaning_mark(self._texts)
        self.keys = (digest(["retrieval", pairs.fingerprint, identity]),)
        self.seconds = 0.0
        self._pacl, self._pairs, self._batch_size = model.pacl, pairs, batch_size
        owners = [k for k, texts in enumerate(pairs.captions) for _ in texts]
        self._image_of_text = torch.tensor(owners)
        self._rows: list[Tensor] = []

    @property
    def n_images(self) -> int:
        """Images in all."""
        return len(self._pairs)

    @property
    def n_done(self) -> int:
        """Images scored."""
        return len(self._rows)

    def iter_scored(self) -> Iterator[str]:
        """Encode the captions, then score the images that are not done.

        Raises:
            InputError: An image cannot be read.
        """
        started_s = time.perf_counter() - self.seconds
        pacl = self._pacl
        with torch.inference_mode():
            text_embeds = self._pacl.embed_texts(self._pacl.text.encode_texts(self._texts))
        rows = range(self.n_done, self.n_images)
        batches = [rows[k : k + self._batch_size] for k in range(0, len(rows), self._batch_size)]

        def read(row: int) -> Tensor:
            return pacl.vision.prepare(self._pairs.open_image(row))

        for _, images in prefetch(read, batches, workers=N_THREADS):
            with torch.inference_mode():
                patches = pacl.patch_embeds(torch.stack(images).to(pacl.device)).flatten(1, 2)
                self._rows += pacl.compatibility(patches, text_embeds).float().cpu()
            self.seconds = time.perf_counter() - started_s
            yield f"of {len(self._texts):,} captions"

    def state(self) -> dict[str, np.ndarray]:
        """All scores, to be kept."""
        kept = torch.stack(self._rows) if self._rows else torch.empty(0, len(self._texts))
        return {"scores": kept.numpy(), "seconds": np.array(self.seconds)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up scores that `state` returned."""
        self._rows = list(torch.from_numpy(state["scores"]))
        self.seconds = float(state["seconds"])

    def recalls(self) -> dict[str, dict[str, float]]:
        """Share found among the best 1, 5 and 10, by direction, once all images are scored."""
        scores = torch.stack(self._rows)
        return {
            "text to image": recalls(text_to_image_ranks(scores, self._image_of_text)),
            "image to text": recalls(image_to_text_ranks(scores, self._image_of_text)),
        }


@dataclass(frozen=True, eq=False)
class RetrievalMeasurement:
    """A model on a table of captions, with the words for its record."""

    opened: RetrievalSet
    subject: Subject
    scores: RetrievalScores
    warnings: tuple[str, ...]

    @property
    def benchmark(self) -> str:
        """The table's folder and name."""
        return f"{self.opened.path.resolve().parent.name}/{self.opened.path.stem}"

    @property
    def stem(self) -> str:
        """Table and model, as a file's name."""
        words = (self.benchmark, "retrieval", *self.subject.words(), self.scores.keys[0][:6])
        return file_stem(*words)

    def describe(self) -> str:
        """How much is compared, in a line."""
        report = self.opened.pairs.report
        return f"{self.benchmark}: {report.n_pairs:,} captions of {report.n_images:,} images"

    def record(self, output: Path) -> ScoreRecord:
        """The finished scores; nothing else is written."""
        pairs = self.opened.pairs
        return ScoreRecord(
            task="retrieval",
            benchmark=self.benchmark,
            subject=self.subject,
            protocol={"n_texts": pairs.report.n_pairs, "ties": "pessimistic"},
            rows=self.scores.recalls(),
            n_images=len(pairs),
            key=self.scores.keys[0],
            root=str(self.opened.path),
            seconds=self.scores.seconds,
            warnings=self.warnings,
            file=f"{self.stem}.json",
        )


def measure_retrieval(
    opened: RetrievalSet, model: Model, subject: Subject, *, batch_size: int = 8
) -> RetrievalMeasurement:
    """Put a model and a table of captions together."""
    scores = RetrievalScores(model, opened.pairs, batch_size=batch_size)
    warnings = (*opened.warnings, *drawn_only(model, is_drawn=opened.is_drawn))
    return RetrievalMeasurement(opened, subject, scores, warnings)
