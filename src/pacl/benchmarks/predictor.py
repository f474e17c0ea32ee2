"""From pictures to class ids under a protocol, with and without PAMR."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from pacl.api import Model
from pacl.benchmarks.task import Task, with_background_level
from pacl.labelling import label_pixels
from pacl.pamr import refine_grid
from pacl.segment_config import SegmentConfig
from pacl.segmenter import build_background_rule, build_scorer, prepare_images, score_inputs
from pacl.stopwatch import Stopwatch
from pacl.vocabulary import encode_vocabulary

PLAIN, WITH_PAMR = "without PAMR", "with PAMR"

Mask = Int64[np.ndarray, "H W"]


class Predictor:
    """A model under a task's protocol; the words are encoded once.

    Args:
        model: any CLIP, with an embedder or as a training-free baseline.
        task: data set and protocol.
        stopwatch: told the stages "preprocessing", "encoder", "scoring", "PAMR" and "labelling".

    Attributes:
        rows: the names of the results that each picture gives, "without PAMR" first.
    """

    def __init__(self, model: Model, task: Task, *, stopwatch: Stopwatch | None = None) -> None:
        self.task = task
        self.rows = (PLAIN,) if task.pamr is None else (PLAIN, WITH_PAMR)
        self._watch = stopwatch or Stopwatch()
        self._encoder = model.pacl.encoder
        self._scale = task.config.logit_scale or model.pacl.logit_scale
        vocabulary = encode_vocabulary(model.pacl, task.candidates.labels, task.templates)
        self._class_of_name = vocabulary.class_of_name
        self._score_patches = build_scorer(
            model.pacl,
            vocabulary.text_embeds,
            patch_stride_px=task.config.patch_stride_px,
            stopwatch=self._watch,
        )

    @torch.inference_mode()
    def predict(self, images: Sequence[Image.Image], masks: Sequence[Mask]) -> list[list[Mask]]:
        """Class ids of pictures, encoded together.

        Args:
            images: upright RGB.
            masks: their truth, which only a protocol with restricted candidates looks at.

        Returns: per picture one label map per row, at the picture's size; -1 is "none".
        """
        config = self.task.config
        with self._watch.time("preprocessing"):
            inputs = prepare_images(images, encoder=self._encoder, config=config)
        with self._watch.time("scoring"):
            all_scores = score_inputs(
                inputs,
                self._score_patches,
                patch_px=self._encoder.patch_size_px,
                config=config,
            )
        results = []
        for image, mask, pixels, scores in zip(images, masks, inputs, all_scores, strict=True):
            size_px, present = (image.height, image.width), self._candidates(mask)
            results.append([self._label(scores, size_px, present, config)])
            if self.task.pamr is not None:
                refined = self._refine(scores, pixels.to(scores.device))
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
        with self._watch.time("PAMR"):
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
        with self._watch.time("labelling"):
            label_map, _ = label_pixels(
                scores,
                class_of_name=self._class_of_name.to(scores.device),
                size_px=size_px,
                logit_scale=self._scale,
                is_background=build_background_rule(config),
                candidates=present,
            )
            return to_class_ids(label_map.cpu().numpy())
