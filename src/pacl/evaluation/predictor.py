"""From images to class ids under a protocol, with and without PAMR."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pacl.api import Model
from pacl.data.images import open_image
from pacl.data.prefetch import N_THREADS, prefetch
from pacl.datasets.segmentation.masks import MaskItem
from pacl.evaluation.task import Task, with_background_level
from pacl.inference.config import SegmentConfig
from pacl.inference.pamr import refine_grid, refine_scores
from pacl.inference.path_segmenter import PathSegmenter, PixelReader
from pacl.inference.pixel_scores import Refine, WindowPamr
from pacl.inference.segmenter import Segmenter, background_level, build_scorer, check_config
from pacl.inference.windows import PatchScorer
from pacl.runtime.stopwatch import Stopwatch

PLAIN, WITH_PAMR = "without PAMR", "with PAMR"

Item = TypeVar("Item")
Mask = Int64[np.ndarray, "H W"]


@dataclass(frozen=True, eq=False)
class Example:
    """An image, its truth, and what was made of it for the encoder."""

    image: Image.Image
    mask: Mask
    pixels: Float[Tensor, "3 _ _"]
    seconds: dict[str, float]
    """Spent on "reading" and "preprocessing"."""


def build_predictor(model: Model, task: Task, *, stopwatch: Stopwatch | None = None) -> Predictor:
    """A model under a task's protocol; the words are encoded now, once.

    Args:
        model: Any CLIP, with an embedder or as a training-free baseline.
        task: Data set and protocol.
        stopwatch: Times the stage "words" too.

    Raises:
        InputError: The protocol does not fit the encoder's patches.
    """
    pacl, path = model.pacl, task.path
    if path.upsampling == "once":
        check_config(task.config, patch_px=pacl.vision.patch_size_px)
    with stopwatch.time("words") if stopwatch else nullcontext():
        vocabulary = model.vocabulary(task.candidates.labels, templates=task.templates)
    if path.changes_clip:
        pacl = pacl.as_published(
            normalisation=path.normalisation, positions=path.positions, activation=path.activation
        )
    return Predictor(
        task,
        encoder=pacl.vision,
        score_patches=build_scorer(
            pacl,
            vocabulary.text_embeds,
            patch_stride_px=task.config.patch_stride_px,
            grid=task.config.grid,
            smoothing=task.config.smoothing,
            stopwatch=stopwatch,
        ),
        class_of_name=vocabulary.class_of_name,
        logit_scale=model.pacl.logit_scale,
        fingerprint=f"{model.fingerprint} {model.describe()}",
        stopwatch=stopwatch,
    )


class Predictor:
    """Anything that scores patches, under a task's protocol.

    Args:
        task: Data set and protocol.
        encoder: Resizes and normalises images.
        score_patches: Returns a score per name and patch.
        class_of_name: Which label of the task's candidates each name stands for, from 0.
        logit_scale: Scale of the softmax over names, unless the task has one.
        fingerprint: Identifies what scores.
        stopwatch: Times the stages "encoder", "scoring", "PAMR" and "labelling".

    Raises:
        InputError: The protocol does not fit the encoder's patches.

    Attributes:
        task: as given.
        rows: the names of the results that each image gives, "without PAMR" first.
        fingerprint: as given.
        stopwatch: as given.
    """

    def __init__(
        self,
        task: Task,
        *,
        encoder: PixelReader,
        score_patches: PatchScorer,
        class_of_name: Int[Tensor, " N"],
        logit_scale: float,
        fingerprint: str = "",
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.task = task
        self.rows = (PLAIN,) if task.pamr is None else (PLAIN, WITH_PAMR)
        self.fingerprint = fingerprint
        self.stopwatch = stopwatch
        self._encoder = encoder
        names = task.candidates.labels.names
        self._segmenter: Segmenter | PathSegmenter
        if task.path.upsampling == "once":
            self._segmenter = Segmenter(
                score_patches,
                encoder=encoder,
                labels=names,
                class_of_name=class_of_name,
                logit_scale=logit_scale,
                config=task.config,
            )
        else:
            self._segmenter = PathSegmenter(
                score_patches,
                encoder=encoder,
                class_of_name=class_of_name,
                background_class=names.index("background") if "background" in names else None,
                logit_scale=logit_scale,
                config=task.config,
                path=task.path,
            )

    def time(self, stage: str) -> AbstractContextManager[None]:
        """Count the time of a block for a stage, where there is a stopwatch."""
        return self.stopwatch.time(stage) if self.stopwatch else nullcontext()

    def read(self, item: MaskItem) -> Example:
        """Read an image and its mask, and prepare the image; threads may do so.

        Raises:
            InputError: One of them cannot be read.
        """
        start_s = time.perf_counter()
        image, mask = open_image(item.image_path), self.task.dataset.read_mask(item)
        read_s = time.perf_counter()
        pixels = self._segmenter.prepare(image).pixels
        seconds = {"reading": read_s - start_s, "preprocessing": time.perf_counter() - read_s}
        return Example(image, mask, pixels, seconds)

    def iter_examples(self, items: Sequence[MaskItem]) -> Generator[list[Example], None, None]:
        """Read items in the task's batches; while one is being used, threads read the next.

        Raises:
            InputError: An image or a mask cannot be read, when its batch's turn comes.
        """
        batches = iter_batches(items, self.task.config.batch_size)
        for _, examples in prefetch(self.read, batches, workers=N_THREADS):
            yield examples

    @property
    def resolved(self) -> dict[str, float | int | None]:
        """What the protocol leaves to the encoder and to defaults, as it was used."""
        config, encoder = self.task.config, self._encoder
        short_side_px = config.short_side_px or encoder.image_size_px
        return {
            "short_side_px": None if config.size_px else short_side_px,
            "patch_stride_px": config.patch_stride_px or encoder.patch_size_px,
            "background_level": background_level(config),
            "logit_scale": self._segmenter.logit_scale,
        }

    @torch.inference_mode()
    def predict(self, examples: Sequence[Example], *, with_pamr: bool = True) -> list[list[Mask]]:
        """Class ids of images, encoded together.

        Args:
            examples: As `read` returns them; their truth is looked at only where it restricts the
                candidates.
            with_pamr: False leaves out the row with PAMR.

        Returns: per image one label map per row, at the image's size; -1 is "none".
        """
        config, pamr = self.task.config, self.task.pamr if with_pamr else None
        at = self.task.path.pamr_at
        of_windows = None
        if pamr is not None and at == "windows":
            of_windows = WindowPamr(pamr.iterations, pamr.dilations)
        pixels = [example.pixels for example in examples]
        with self.time("scoring"):
            if isinstance(self._segmenter, PathSegmenter):
                all_scores = iter(self._segmenter.score(pixels, pamr=of_windows))
            else:
                all_scores = iter(self._segmenter.score(pixels))
        results = []
        for example in examples:
            with self.time("scoring"):
                scores = next(all_scores)
            size_px = (example.image.height, example.image.width)
            present = self._candidates(example.mask)
            n_plain = len(scores) // (1 if of_windows is None else 2)
            results.append([self._label(scores[:n_plain], size_px, present, config)])
            if pamr is None:
                continue
            level, refine = with_background_level(config, pamr), None
            if at == "windows":
                scores = scores[n_plain:]
            elif at == "original":
                refine = self._refine_at(size_px, example.pixels.to(scores.device))
            else:
                scores = self._refine(scores, example.pixels.to(scores.device))
            results[-1].append(self._label(scores, size_px, present, level, refine))
        return results

    def _refine_at(self, size_px: tuple[int, int], pixels: Float[Tensor, "3 H W"]) -> Refine:
        """PAMR at the image's own size, of what the encoder saw, upsampled."""
        assert self.task.pamr is not None
        image = F.interpolate(pixels[None], size_px, mode="bilinear", align_corners=False)[0]
        iterations, dilations = self.task.pamr.iterations, self.task.pamr.dilations
        return partial(refine_scores, image=image, iterations=iterations, dilations=dilations)

    def _candidates(self, mask: Mask) -> tuple[int, ...] | None:
        if not self.task.is_restricted:
            return None
        return self.task.candidates.present(np.unique(mask).tolist())

    def _refine(
        self, scores: Float[Tensor, "N rows columns"], pixels: Float[Tensor, "3 H W"]
    ) -> Float[Tensor, "N H W"]:
        """Scores at the working size, averaged along like colours."""
        assert self.task.pamr is not None
        with self.time("PAMR"):
            return refine_grid(
                scores,
                pixels,
                iterations=self.task.pamr.iterations,
                dilations=self.task.pamr.dilations,
            )

    def _label(
        self,
        scores: Float[Tensor, "N rows columns"],
        size_px: tuple[int, int],
        present: tuple[int, ...] | None,
        config: SegmentConfig,
        refine: Refine | None = None,
    ) -> Mask:
        to_class_ids = self.task.candidates.to_class_ids
        if present == ():  # nothing in the truth has a word
            return to_class_ids(np.zeros(size_px, dtype=np.int32))
        with self.time("labelling"):
            if isinstance(self._segmenter, PathSegmenter):
                label_map = self._segmenter.label(
                    scores, size_px, config=config, candidates=present, refine=refine
                )
            else:
                label_map, _ = self._segmenter.label(
                    scores, size_px, config=config, candidates=present, wants_confidence=False
                )
            return to_class_ids(label_map.cpu().numpy())


def iter_batches(items: Sequence[Item], batch_size: int) -> Iterator[Sequence[Item]]:
    """Consecutive slices of at most `batch_size`."""
    for start in range(0, len(items), batch_size):
        yield items[start : start + batch_size]
