"""From images to class ids under a protocol, with and without PAMR."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from PIL import Image
from torch import Tensor

from pacl.api import Model
from pacl.datasets.segmentation.read_ahead import Example
from pacl.evaluation.task import Task, with_background_level
from pacl.inference.config import SegmentConfig
from pacl.inference.pamr import refine_grid
from pacl.inference.segmenter import (
    ImageReader,
    Segmenter,
    background_level,
    build_scorer,
    check_config,
)
from pacl.inference.windows import PatchScorer
from pacl.runtime.stopwatch import Stopwatch

PLAIN, WITH_PAMR = "without PAMR", "with PAMR"

Mask = Int64[np.ndarray, "H W"]


def build_predictor(model: Model, task: Task, *, stopwatch: Stopwatch | None = None) -> Predictor:
    """A model under a task's protocol; the words are encoded now, once.

    Args:
        model: Any CLIP, with an embedder or as a training-free baseline.
        task: Data set and protocol.
        stopwatch: Times the stage "words" too.

    Raises:
        InputError: The protocol does not fit the encoder's patches.
    """
    watch = stopwatch or Stopwatch()
    check_config(task.config, patch_px=model.pacl.vision.patch_size_px)
    with watch.time("words"):
        vocabulary = model.vocabulary(task.candidates.labels, templates=task.templates)
    return Predictor(
        task,
        encoder=model.pacl.vision,
        score_patches=build_scorer(
            model.pacl,
            vocabulary.text_embeds,
            patch_stride_px=task.config.patch_stride_px,
            smoothing=task.config.smoothing,
            stopwatch=watch,
        ),
        class_of_name=vocabulary.class_of_name,
        logit_scale=model.pacl.logit_scale,
        fingerprint=f"{model.fingerprint} {model.describe()}",
        stopwatch=watch,
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
        stopwatch: as given, or one of its own.
    """

    def __init__(
        self,
        task: Task,
        *,
        encoder: ImageReader,
        score_patches: PatchScorer,
        class_of_name: Int[Tensor, " N"],
        logit_scale: float,
        fingerprint: str = "",
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.task = task
        self.rows = (PLAIN,) if task.pamr is None else (PLAIN, WITH_PAMR)
        self.fingerprint = fingerprint
        self.stopwatch = stopwatch or Stopwatch()
        self._encoder = encoder
        self._segmenter = Segmenter(
            score_patches,
            encoder=encoder,
            labels=task.candidates.labels.names,
            class_of_name=class_of_name,
            logit_scale=logit_scale,
            config=task.config,
        )

    def prepare(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        """An image as `predict` wants it: at its working size, normalised."""
        return self._segmenter.prepare(image).pixels

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
    def predict(
        self, examples: Sequence[Example[Tensor]], *, with_pamr: bool = True
    ) -> list[list[Mask]]:
        """Class ids of images, encoded together.

        Args:
            examples: Images, prepared; their truth is looked at only where it restricts the
                candidates.
            with_pamr: False leaves out the row with PAMR.

        Returns: per image one label map per row, at the image's size; -1 is "none".
        """
        config = self.task.config
        with self.stopwatch.time("scoring"):
            all_scores = self._segmenter.score([example.prepared for example in examples])
        results = []
        for example, scores in zip(examples, all_scores, strict=True):
            size_px = (example.image.height, example.image.width)
            present = self._candidates(example.mask)
            results.append([self._label(scores, size_px, present, config)])
            if self.task.pamr is not None and with_pamr:
                refined = self._refine(scores, example.prepared.to(scores.device))
                level = with_background_level(config, self.task.pamr)
                results[-1].append(self._label(refined, size_px, present, level))
        return results

    def _candidates(self, mask: Mask) -> tuple[int, ...] | None:
        if not self.task.is_restricted:
            return None
        return self.task.candidates.present(np.unique(mask).tolist())

    def _refine(
        self, scores: Float[Tensor, "N rows columns"], pixels: Float[Tensor, "3 H W"]
    ) -> Float[Tensor, "N H W"]:
        """Scores at the working size, averaged along like colours."""
        assert self.task.pamr is not None
        with self.stopwatch.time("PAMR"):
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
    ) -> Mask:
        to_class_ids = self.task.candidates.to_class_ids
        if present == ():  # nothing in the truth has a word
            return to_class_ids(np.zeros(size_px, dtype=np.int32))
        with self.stopwatch.time("labelling"):
            label_map, _ = self._segmenter.label(
                scores, size_px, config=config, candidates=present, wants_confidence=False
            )
            return to_class_ids(label_map.cpu().numpy())
