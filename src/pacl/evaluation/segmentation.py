"""Scoring segmentation against ground truth: mIoU on images with masks.

One confusion matrix for the whole data set, at each image's original resolution, ignored pixels
left out, classes absent from truth and prediction skipped in the mean.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image

from pacl.api import Model
from pacl.datasets.segmentation.masks import MaskDataset
from pacl.evaluation.plan import SegmentationSet
from pacl.evaluation.predictor import Predictor, build_predictor
from pacl.evaluation.records import ScoreRecord, Subject, drawn_only, file_stem
from pacl.evaluation.scoreboard import (
    FIGURES,
    WAITING,
    SegmentationReport,
    SegmentationScores,
    rank_images,
)
from pacl.evaluation.task import Task, build_task, choose_preset
from pacl.inference.config import SegmentConfig
from pacl.results.writers.overlay import draw_overlay
from pacl.runtime.files import write_atomically
from pacl.runtime.stopwatch import Stopwatch

OnProgress = Callable[[int, int, float], None]
"""Told the images done, the images in all and the mIoU so far."""
OTHER_TOWER = (
    "the preset is of a CLIP; this vision tower keeps its own mean and deviation of colours, "
    "positions and activation"
)
_GAP_PX = 8
_PAPER = (250, 250, 248)


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
        notes = (f"  note: {note}" for note in self.warnings if note == OTHER_TOWER)
        return "\n".join([self.task.describe(), *notes])

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
                **({"profile": describe_time(watch)} if watch is not None else {}),
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
    watch = None
    if use_profile:
        watch = Stopwatch(torch.cuda.synchronize if model.pacl.device.type == "cuda" else None)
    fingerprints = (model.fingerprint, model.pacl.weights_fingerprint)  # the second until 2026-11
    scores = SegmentationScores(
        build_predictor(model, task, stopwatch=watch),
        keys=tuple(task.key(f"{each} {model.describe()}") for each in fingerprints),
    )
    warnings = (*opened.warnings, *drawn_only(model, is_drawn=opened.is_drawn))
    if task.path.changes_clip and not model.pacl.runs_as_published:
        warnings += (OTHER_TOWER,)
    return SegmentationMeasurement(opened, subject, scores, warnings)


def describe_time(watch: Stopwatch) -> dict[str, Any]:
    """Seconds by stage, and the share of all but the encoder, in [0, 1].

    Waiting is left out of the share: it is the reading threads' time once more. So are the words,
    which are encoded once.
    """
    seconds = {name: round(value, 3) for name, value in watch.seconds.items()}
    background = {f"{name} (threads)": round(s, 3) for name, s in watch.background.items()}
    others = [s for name, s in seconds.items() if name not in ("encoder", "words", WAITING)]
    besides = sum(others) + sum(background.values())
    share = besides / (besides + seconds.get("encoder", 0.0))
    return {"seconds": seconds | background, "share_besides_encoder": share}


def draw_samples(
    predictor: Predictor, image_miou: Sequence[float], directory: Path, *, stem: str
) -> dict[str, dict[str, object]]:
    """Write one sheet each for the best, the median and the worst image: ours left, truth right.

    Args:
        predictor: Segments them again, without PAMR.
        image_miou: The mIoU of every image of the data set, in order.
        directory: Made where it does not exist.
        stem: Beginning of the file names, which end in _best.png and so on.

    Returns:
        Per rank the image's name, its mIoU in [0, 1] and the file written.
    """
    dataset = predictor.task.dataset
    described: dict[str, dict[str, object]] = {}
    for rank, k in rank_images(image_miou).items():
        example = predictor.read(dataset.items[k])
        [[label_map]] = predictor.predict([example], with_pamr=False)
        truth = np.where(example.mask == dataset.ignore_label, -1, example.mask)
        sheet = _beside(example.image, label_map, truth, dataset.labels.names)
        buffer, path = io.BytesIO(), directory / f"{stem}_{rank}.png"
        sheet.save(buffer, format="PNG")
        write_atomically(path, buffer.getvalue())
        name = dataset.items[k].image_path.name
        described[rank] = {"image": name, "miou": image_miou[k], "file": str(path)}
    return described


def _beside(
    image: Image.Image,
    prediction: Int64[np.ndarray, "H W"],
    truth: Int64[np.ndarray, "H W"],
    labels: Sequence[str],
) -> Image.Image:
    """Two overlays, of class ids with -1 for none, next to each other."""
    left, right = (draw_overlay(image, each + 1, labels) for each in (prediction, truth))
    sheet = Image.new("RGB", (2 * image.width + _GAP_PX, image.height), _PAPER)
    sheet.paste(left, (0, 0))
    sheet.paste(right, (image.width + _GAP_PX, 0))
    return sheet
