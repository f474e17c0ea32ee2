"""Scoring segmentation against ground truth: mIoU on images with masks.

One confusion matrix for the whole data set, at each image's original resolution, ignored pixels
left out, classes absent from truth and prediction skipped in the mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from pacl.api import Model, is_on_storybook
from pacl.datasets.segmentation.masks import MaskDataset
from pacl.datasets.segmentation.open import SegmentationSet
from pacl.datasets.segmentation.read_ahead import iter_read
from pacl.evaluation.predictor import Predictor, build_predictor
from pacl.evaluation.records import DRAWN_ONLY, ScoreRecord, Subject, file_stem
from pacl.evaluation.samples import draw_samples
from pacl.evaluation.scoreboard import Scoreboard, SegmentationReport
from pacl.evaluation.task import Task, build_task, choose_preset
from pacl.inference.config import SegmentConfig
from pacl.runtime.stopwatch import Stopwatch

Item = TypeVar("Item")
OnProgress = Callable[[int, int, float], None]
"""Told the images done, the images in all and the mIoU so far."""
FIGURES = ("iou", "miou", "pixel_accuracy", "mean_accuracy", "n_zero_iou")
_WAITING = "waiting for images"


class SegmentationScores:
    """Pixel counts of one model on one data set under a protocol.

    Args:
        predictor: A model under a task's protocol; its stopwatch counts where the time goes.
        keys: Identify model, data and protocol, in the present form and in older ones; None: as
            the predictor's fingerprint says.

    Attributes:
        predictor: As given.
        seconds: Time spent so far, in earlier runs too.
    """

    def __init__(self, predictor: Predictor, *, keys: tuple[str, ...] | None = None) -> None:
        self.predictor = predictor
        self.seconds = 0.0
        self._keys = keys
        dataset = predictor.task.dataset
        self._board = Scoreboard(
            predictor.rows, len(dataset.labels), ignore_label=dataset.ignore_label
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """What these counts are of."""
        if self._keys is None:
            self._keys = (self.predictor.task.key(self.predictor.fingerprint),)
        return self._keys

    @property
    def n_images(self) -> int:
        """Images in all."""
        return len(self.predictor.task.dataset)

    @property
    def n_done(self) -> int:
        """Images counted."""
        return self._board.n_images

    @property
    def image_miou(self) -> tuple[float, ...]:
        """The mIoU of each image, without PAMR; NaN where nothing is scored."""
        return tuple(self._board.image_miou[0])

    def miou(self) -> float:
        """The data set's mIoU so far, without PAMR, in [0, 1]."""
        return self._board.miou()

    def iter_scored(self) -> Iterator[str]:
        """Segment the images that are not done and compare them with their masks.

        Yields:
            A few words after each batch.

        Raises:
            InputError: An image or a mask cannot be read.
        """
        predictor, watch = self.predictor, self.predictor.stopwatch
        started_s = time.perf_counter() - self.seconds
        dataset = predictor.task.dataset
        batches = iter_batches(dataset.items[self.n_done :], predictor.task.config.batch_size)
        reading = iter_read(dataset, batches, predictor.prepare)
        while True:
            with watch.time(_WAITING):
                examples = next(reading, None)
            if examples is None:
                return
            for example in examples:
                watch.add_background(example.seconds)
            predictions = predictor.predict(examples)
            with watch.time("metrics"):
                for of_image, example in zip(predictions, examples, strict=True):
                    self._board.update(of_image, example.mask)
            self.seconds = time.perf_counter() - started_s
            yield f"mIoU {self.miou():.3f}"

    def state(self) -> dict[str, np.ndarray]:
        """All counts, to be kept."""
        return self._board.state() | {"seconds": np.array(self.seconds)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up counts that `state` returned."""
        self._board.restore(state)
        self.seconds = float(state["seconds"])

    def reports(self) -> dict[str, SegmentationReport]:
        """By "without PAMR" and, where the task has it, "with PAMR"."""
        task = self.predictor.task
        return {
            name: self._board.report(
                row,
                labels=task.dataset.labels.names,
                seconds=self.seconds,
                protocol=task.protocol(),
            )
            for row, name in enumerate(self.predictor.rows)
        }


def evaluate_folder(
    model: Model,
    dataset: MaskDataset,
    *,
    config: SegmentConfig | None = None,
    on_progress: OnProgress | None = None,
) -> SegmentationReport:
    """Score a model on images with masks, with settings of one's own and the data set's names.

    Args:
        model: Any CLIP, with an embedder or as a training-free baseline.
        dataset: Images, masks, class names, ids to ignore.
        config: Sizes, windows, background rule; None: the defaults.
        on_progress: Called with the images done, the images in all and the mIoU so far.

    Raises:
        InputError: An image or a mask cannot be read.
    """
    task = build_task("folder", dataset, preset=None, config=config, templates=model.templates)
    [report] = evaluate_task(build_predictor(model, task), on_progress=on_progress).values()
    return report


def evaluate_task(
    predictor: Predictor, *, on_progress: OnProgress | None = None
) -> dict[str, SegmentationReport]:
    """Score anything that segments under a task's protocol, by rows as in `reports`."""
    scores = SegmentationScores(predictor)
    for _ in scores.iter_scored():
        if on_progress is not None:
            on_progress(scores.n_done, scores.n_images, scores.miou())
    return scores.reports()


@dataclass(frozen=True, eq=False)
class SegmentationMeasurement:
    """A model on a data set under a protocol, with the words for its record."""

    opened: SegmentationSet
    subject: Subject
    scores: SegmentationScores
    is_profiled: bool
    warnings: tuple[str, ...]

    @property
    def benchmark(self) -> str:
        """The data set's name, as in tables."""
        return self.opened.name

    @property
    def task(self) -> Task:
        """The protocol."""
        return self.scores.predictor.task

    @property
    def stem(self) -> str:
        """Data set, protocol and model, as a file's name; a hash where these do not say it all."""
        task = self.task
        words = [self.benchmark, "own" if task.preset is None else task.preset.name]
        words += self.subject.words()
        if task.preset is None or (task.pamr is not None and not task.preset.pamr_iterations):
            words.append(task.protocol()["hash"][:6])
        return file_stem(*words, "" if self.subject.engine == "torch" else self.subject.engine)

    def describe(self) -> str:
        """The protocol in a few lines, to stand above the score."""
        return self.task.describe()

    def record(self, output: Path) -> ScoreRecord:
        """The finished scores; the best, median and worst image are drawn into output/pictures."""
        scores, task, preset = self.scores, self.task, self.task.preset
        rows = {name: report.to_json() for name, report in scores.reports().items()}
        first, protocol = next(iter(rows.values())), task.protocol()
        samples = draw_samples(
            scores.predictor, scores.image_miou, output / "pictures", stem=self.stem
        )
        watch = scores.predictor.stopwatch
        return ScoreRecord(
            task="segmentation",
            benchmark=self.benchmark,
            subject=self.subject,
            protocol=protocol,
            rows={name: {key: row[key] for key in FIGURES} for name, row in rows.items()},
            n_images=scores.n_images,
            key=scores.keys[0],
            root=str(self.opened.root),
            seconds=scores.seconds,
            comparable=task.is_comparable and not self.warnings,
            warnings=self.warnings,
            details={
                "n_expected": list(self.opened.n_expected),
                "preset": None if preset is None else preset.name,
                "preset_hash": None if preset is None else preset.digest,
                "hash": protocol["hash"],
                "resolved": scores.predictor.resolved,
                "labels": list(task.dataset.labels.names),
                **{key: first[key] for key in FIGURES},
                "pamr": protocol["pamr"],
                "pictures": samples,
                **({"profile": describe_time(watch)} if self.is_profiled else {}),
            },
            file=f"{self.stem}.json",
        )


def measure_segmentation(
    opened: SegmentationSet,
    model: Model,
    subject: Subject,
    *,
    preset: str | None = None,
    config: SegmentConfig | None = None,
    use_pamr: bool = False,
    use_profile: bool = False,
) -> SegmentationMeasurement:
    """Put a model, a data set and a protocol together; the words are encoded now.

    Args:
        opened: The data set.
        model: Any CLIP, with an embedder or as a training-free baseline.
        subject: What the model is called.
        preset: The protocol by name; None: SCLIP's on the benchmarks, else config.
        config: Settings in place of a preset; of it only the batch size is taken beside one.
        use_pamr: Whether there is a second row with PAMR, also where the preset has none.
        use_profile: Whether the time of the stages is measured.

    Raises:
        InputError: There is no such preset, or the protocol does not fit the encoder's patches.
    """
    config = config or SegmentConfig()
    task = build_task(
        opened.name,
        opened.dataset,
        preset=choose_preset(preset, opened.name, config),
        config=config,
        use_pamr=use_pamr,
    )
    is_asynchronous = use_profile and model.pacl.device.type == "cuda"
    watch = Stopwatch(torch.cuda.synchronize if is_asynchronous else None)
    fingerprints = (model.fingerprint, model.pacl.weights_fingerprint)  # the second until 2026-11
    scores = SegmentationScores(
        build_predictor(model, task, stopwatch=watch),
        keys=tuple(task.key(f"{each} {model.describe()}") for each in fingerprints),
    )
    is_meaningless = is_on_storybook(model) and not opened.is_drawn
    warnings = (*opened.warnings, *((DRAWN_ONLY,) if is_meaningless else ()))
    return SegmentationMeasurement(opened, subject, scores, use_profile, warnings)


def describe_time(watch: Stopwatch) -> dict[str, Any]:
    """Seconds by stage, and the share of all but the encoder, in [0, 1].

    Waiting is left out of the share: it is the reading threads' time once more. So are the words,
    which are encoded once.
    """
    seconds = {name: round(value, 3) for name, value in watch.seconds.items()}
    background = {f"{name} (threads)": round(s, 3) for name, s in watch.background.items()}
    others = [s for name, s in seconds.items() if name not in ("encoder", "words", _WAITING)]
    besides = sum(others) + sum(background.values())
    share = besides / (besides + seconds.get("encoder", 0.0))
    return {"seconds": seconds | background, "share_besides_encoder": share}


def iter_batches(items: Sequence[Item], batch_size: int) -> Iterator[Sequence[Item]]:
    """Consecutive slices of at most `batch_size`."""
    for start in range(0, len(items), batch_size):
        yield items[start : start + batch_size]
