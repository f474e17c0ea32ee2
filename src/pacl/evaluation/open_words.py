"""Scoring segmentation without labels: the right names, and the right regions by any name.

Beside the score with the known class names, on the same images, stand three readings of the words
that the model chose itself: *overlap* gives each region the true class that it covers most, which
asks for regions only; *nearest* the class whose name the text tower finds most alike; *hard* the
class of that very name. Recall and precision are of names, over all images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from pacl.api import Model
from pacl.data.images import open_image
from pacl.data.prefetch import N_THREADS, prefetch
from pacl.datasets.segmentation.masks import MaskDataset, MaskItem
from pacl.evaluation.metrics.segmentation import NO_CLASS
from pacl.evaluation.plan import SegmentationSet
from pacl.evaluation.predictor import iter_batches
from pacl.evaluation.records import ScoreRecord, Subject, digest, drawn_only, file_stem
from pacl.evaluation.scoreboard import FIGURES, Scoreboard
from pacl.evaluation.task import digest_data
from pacl.inference import open_words
from pacl.inference.config import SegmentConfig
from pacl.inference.open_words import OpenSegmenter, WordBank
from pacl.inference.segmenter import Segmenter, build_scorer

ROWS = ("known names", "overlap", "nearest", "hard")
WORTH_A_NAME = 0.006
"""A true class counts for recall if it covers at least this share of an image's scored pixels."""
COUNTS = ("true names", "found", "words", "right words")
TASK = "open words"


@dataclass(frozen=True, eq=False)
class Example:
    """An image for the encoder, its size and its truth."""

    pixels: Float[Tensor, "3 _ _"]
    mask: Int64[np.ndarray, "H W"]


class OpenScores:
    """Counts over the images of a data set, with names known and with words chosen.

    Args:
        model: Any CLIP, with an embedder or as a training-free baseline.
        dataset: Images, masks and class names.
        bank: The words to choose from.
        config: Sizes and windows; without a background rule.

    Attributes:
        seconds: Time spent so far, in earlier runs too.
        names: Counts of names, by COUNTS.
    """

    def __init__(
        self, model: Model, dataset: MaskDataset, bank: WordBank, config: SegmentConfig
    ) -> None:
        self.seconds = 0.0
        self.names = np.zeros(len(COUNTS), dtype=np.int64)
        self._dataset, self._config = dataset, config
        known = model.vocabulary(dataset.labels)
        embeds = torch.cat([bank.vocabulary.text_embeds, known.text_embeds])
        score = build_scorer(
            model.pacl,
            embeds,
            patch_stride_px=config.patch_stride_px,
            grid=config.grid,
            smoothing=config.smoothing,
        )

        def segmenter(labels: tuple[str, ...], class_of_name: Int[Tensor, " N"]) -> Segmenter:
            return Segmenter(
                score,
                encoder=model.pacl.vision,
                labels=labels,
                class_of_name=class_of_name,
                logit_scale=model.pacl.logit_scale,
                config=config,
            )

        words = bank.vocabulary.labels
        self._n_words = len(words)
        self._known = segmenter(known.labels, known.class_of_name)
        self._open = OpenSegmenter(
            segmenter(words, bank.vocabulary.class_of_name),
            bank,
            temperature=model.pacl.patch_temperature,
        )
        similar = bank.vocabulary.text_embeds @ known.text_embeds.T
        self._nearest = known.class_of_name[similar.argmax(dim=1)].cpu().numpy()
        number = {name.casefold(): k for k, name in enumerate(dataset.labels.names)}
        self._same = np.array([number.get(word.casefold(), NO_CLASS) for word in words])
        self._board = Scoreboard(ROWS, len(dataset.labels), ignore_label=dataset.ignore_label)
        self.keys = (
            digest(
                {
                    "model": f"{model.fingerprint} {model.describe()}",
                    "data": digest_data(dataset),
                    "words": list(words),
                    "usual": bank.usual.tolist(),
                    "protocol": protocol(config),
                }
            ),
        )

    @property
    def n_images(self) -> int:
        """Images in all."""
        return len(self._dataset)

    @property
    def n_done(self) -> int:
        """Images counted."""
        return self._board.n_images

    def miou(self, row: str) -> float:
        """The data set's mIoU so far under one reading, in [0, 1]."""
        return self._board.miou(ROWS.index(row))

    def iter_scored(self) -> Iterator[str]:
        """Segment the images that are not done and compare them with their masks.

        Yields:
            A few words after each batch.

        Raises:
            InputError: An image or a mask cannot be read.
        """
        started_s = time.perf_counter() - self.seconds
        batches = iter_batches(self._dataset.items[self.n_done :], self._config.batch_size)
        for _, examples in prefetch(self._read, batches, workers=N_THREADS):
            all_scores = self._known.score([example.pixels for example in examples])
            for example, scores in zip(examples, all_scores, strict=True):
                self._count(example.mask, scores)
            self.seconds = time.perf_counter() - started_s
            yield f"mIoU {self.miou('known names'):.3f}, overlap {self.miou('overlap'):.3f}"

    def state(self) -> dict[str, np.ndarray]:
        """All counts, to be kept."""
        return self._board.state() | {"names": self.names, "seconds": np.array(self.seconds)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up counts that `state` returned."""
        self._board.restore(state)
        self.names, self.seconds = state["names"].copy(), float(state["seconds"])

    def rows(self, protocol: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Figures by reading."""
        reports = (
            self._board.report(
                k, labels=self._dataset.labels.names, seconds=self.seconds, protocol=protocol
            ).to_json()
            for k in range(len(ROWS))
        )
        return {
            name: {key: row[key] for key in FIGURES}
            for name, row in zip(ROWS, reports, strict=True)
        }

    def _read(self, item: MaskItem) -> Example:
        mask = self._dataset.read_mask(item)
        return Example(self._known.prepare(open_image(item.image_path)).pixels, mask)

    @torch.inference_mode()
    def _count(self, mask: Int64[np.ndarray, "H W"], scores: Float[Tensor, "N _ _"]) -> None:
        size_px = mask.shape[0], mask.shape[1]
        of_names, _ = self._known.label(scores[self._n_words :], size_px, wants_confidence=False)
        chosen, of_words, _ = self._open.label(scores[: self._n_words], size_px)
        word = of_words.cpu().numpy().astype(np.int64) - 1
        covered = overlap_classes(word, mask, self._dataset.ignore_label, self._n_words)
        readings = [table[word] for table in (covered, self._nearest, self._same)]
        self._board.update([of_names.cpu().numpy().astype(np.int64) - 1, *readings], mask)
        self.names += count_names(self._same[chosen], mask, self._dataset.ignore_label)


def overlap_classes(
    word: Int64[np.ndarray, "H W"], mask: Int64[np.ndarray, "H W"], ignore_label: int, n_words: int
) -> Int64[np.ndarray, " N"]:
    """Return for each word the true class that its region covers most, NO_CLASS if it has none."""
    is_scored = mask != ignore_label
    n_classes = int(mask[is_scored].max(initial=0)) + 1
    cells = np.bincount(
        word[is_scored] * n_classes + mask[is_scored], minlength=n_words * n_classes
    ).reshape(n_words, n_classes)
    return np.where(cells.any(axis=1), cells.argmax(axis=1), NO_CLASS)


def count_names(
    named: Int64[np.ndarray, " m"], mask: Int64[np.ndarray, "H W"], ignore_label: int
) -> Int64[np.ndarray, " 4"]:
    """Count an image's names, by COUNTS.

    Args:
        named: The class of each word chosen, NO_CLASS for words that are no class's name.
        mask: The truth.
        ignore_label: What is not scored.
    """
    counts = np.bincount(mask[mask != ignore_label])
    there = np.flatnonzero(counts)
    worth = np.flatnonzero(counts >= max(1, WORTH_A_NAME * counts.sum()))
    found, right = np.isin(worth, named).sum(), np.isin(named, there).sum()
    return np.array([len(worth), found, len(named), right])


def protocol(config: SegmentConfig) -> dict[str, Any]:
    """Every setting that decides the numbers besides model, data and words."""
    names = ("USUAL_SHARE", "LEVEL", "N_WORDS_MAX", "AREA_MIN", "SAME_WORD", "N_CALIBRATION")
    own = {name.lower(): getattr(open_words, name) for name in names}
    return {"name": TASK, "worth_a_name": WORTH_A_NAME, **own, **config.decisive()}


@dataclass(frozen=True, eq=False)
class OpenMeasurement:
    """A model that chooses its words, on a data set, with the words for its record."""

    opened: SegmentationSet
    subject: Subject
    scores: OpenScores
    config: SegmentConfig
    n_words: int
    notes: tuple[str, ...]
    """Warnings beside those of the data set."""

    @property
    def benchmark(self) -> str:
        """The data set's name, as in tables."""
        return self.opened.name

    @property
    def stem(self) -> str:
        """Data set, task, model and a hash, as a file's name."""
        return file_stem(self.benchmark, TASK, *self.subject.words(), self.scores.keys[0][:6])

    def describe(self) -> str:
        """The protocol in a few lines, to stand above the score."""
        settings = ", ".join(f"{key} {value}" for key, value in protocol(self.config).items())
        return f"words chosen per image from {self.n_words:,} on {self.benchmark}: {settings}"

    def record(self, output: Path) -> ScoreRecord:
        """The finished scores."""
        settings, scores = protocol(self.config), self.scores
        n_true, n_found, n_named, n_right = scores.names.tolist()
        return ScoreRecord(
            task=TASK,
            benchmark=self.benchmark,
            subject=self.subject,
            protocol=settings,
            rows=scores.rows(settings),
            n_images=scores.n_images,
            key=scores.keys[0],
            root=str(self.opened.root),
            seconds=scores.seconds,
            warnings=(*self.opened.warnings, *self.notes),
            details={
                "recall_of_names": n_found / max(1, n_true),
                "precision_of_names": n_right / max(1, n_named),
                "words_per_image": n_named / max(1, scores.n_images),
                "names_per_image": n_true / max(1, scores.n_images),
                "n_words": self.n_words,
            },
            file=f"{self.stem}.json",
        )


def measure_open_words(
    opened: SegmentationSet,
    model: Model,
    subject: Subject,
    *,
    config: SegmentConfig,
    words: tuple[str, ...] | None,
) -> OpenMeasurement:
    """Put together a data set and a model that chooses its words.

    Args:
        opened: The data set; its images, not its masks, calibrate the words.
        model: Any CLIP, with an embedder or as a training-free baseline.
        subject: What the model is called.
        config: Sizes and windows.
        words: To choose from; None: the model's own, see `pacl.api.Model.word_bank`.
    """
    images = [item.image_path for item in opened.dataset.items]
    bank = model.word_bank(images, words=words, config=config)
    scores = OpenScores(model, opened.dataset, bank, config)
    notes = drawn_only(model, is_drawn=opened.is_drawn)
    return OpenMeasurement(opened, subject, scores, config, len(bank.vocabulary.labels), notes)
