"""Segmenting images with any function that scores patches, at any size."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from pacl.errors import InputError
from pacl.inference.config import SegmentConfig
from pacl.inference.labelling import BackgroundRule, above_entropy, below_probability, label_pixels
from pacl.inference.shifted import check_shifts, encode_shifted
from pacl.inference.smoothing import smooth_scores
from pacl.inference.windows import PatchScorer, grid_px, score_maps
from pacl.modeling.compatibility import patch_similarity
from pacl.modeling.pacl import Pacl
from pacl.results import Segmentation
from pacl.runtime.stopwatch import Stopwatch

MAX_ASPECT = 32
"""Largest ratio of an image's sides: beyond it, memory would run out unannounced."""


@runtime_checkable
class ImageReader(Protocol):
    """What segmentation needs of an encoder."""

    @property
    def image_size_px(self) -> int:
        """Side of the square images that it was trained on."""
        ...

    @property
    def patch_size_px(self) -> int:
        """Side of a patch."""
        ...

    def prepare(
        self, image: Image.Image, *, size_px: tuple[int, int] | None = None
    ) -> Float[Tensor, "3 H W"]:
        """Resize an image to exactly (height, width) and normalise it."""
        ...


def build_background_rule(config: SegmentConfig) -> BackgroundRule | None:
    """Return the rule that a configuration names; None where every pixel is labelled."""
    level = background_level(config)
    if level is None:
        return None
    rule = {"probability": below_probability, "entropy": above_entropy}[config.background]
    return partial(rule, level=level)


def background_level(config: SegmentConfig) -> float | None:
    """Return the level that is given, or the rule's own; None where there is no rule."""
    if config.background == "none":
        return None
    own = {"probability": 0.5, "entropy": 1.5}[config.background]
    return own if config.background_level is None else config.background_level


def working_size_px(
    height: int, width: int, *, encoder: ImageReader, config: SegmentConfig
) -> tuple[int, int]:
    """Return the height and width that an image is resized to.

    Both are multiples of the patch and, where it does not divide the patch, of the patch stride,
    as near to the image's shape as that allows.

    Raises:
        InputError: The image is more than MAX_ASPECT times as long as it is wide.
    """
    step_px = grid_px(encoder.patch_size_px, config.patch_stride_px or encoder.patch_size_px)
    if config.size_px is not None:
        tall, wide = config.size_px
    else:
        if max(height, width) > MAX_ASPECT * min(height, width):
            raise InputError(
                f"the image is too elongated: {width} × {height} px",
                why=f"one side is more than {MAX_ASPECT} times the other",
                fix="cut it into pieces first",
            )
        scale = (config.short_side_px or encoder.image_size_px) / min(height, width)
        tall, wide = height * scale, width * scale
    return max(1, round(tall / step_px)) * step_px, max(1, round(wide / step_px)) * step_px


def build_scorer(
    model: Pacl,
    text_embeds: Float[Tensor, "C D"],
    *,
    patch_stride_px: int | None = None,
    grid: str = "whole",
    smoothing: float | None = None,
    stopwatch: Stopwatch | None = None,
) -> PatchScorer:
    """Build the scorer of a PACL model: the cosine of each patch with each text.

    Args:
        model: Embeds the patches.
        text_embeds: Unit norm, one row per name.
        patch_stride_px: Distance between patches; None: the patch size.
        grid: How that stride is reached, see `SegmentConfig.grid`.
        smoothing: Share of the patches that scores are averaged over, see `smooth_scores`; None:
            each patch by itself.
        stopwatch: Measures the time of the network, as "encoder".

    Raises:
        InputError: The vision tower cannot space its patches that way, or cannot merge them.
    """
    patch_px = model.vision.patch_size_px
    if grid == "shifted" and patch_stride_px not in (None, patch_px):
        check_shifts(patch_px, patch_stride_px)
        encode = partial(
            encode_shifted, model.encode_patches, patch_px=patch_px, stride_px=patch_stride_px
        )
    else:
        if grid == "merged":
            model.check_merging()
        if patch_stride_px is not None:
            model.vision.check_stride(patch_stride_px)
        encode = partial(model.encode_patches, stride_px=patch_stride_px, merges=grid == "merged")

    @torch.inference_mode()
    def score_patches(images: Tensor) -> Tensor:
        with stopwatch.time("encoder") if stopwatch else nullcontext():
            tokens, size = encode(images.to(model.device))
            patch_embeds = model.embed_tokens(tokens)
        similarity = patch_similarity(patch_embeds, text_embeds)
        if smoothing is not None:
            similarity = smooth_scores(similarity, tokens, share=smoothing)
        return similarity.unflatten(2, size)

    return score_patches


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image and the encoder's input made from it."""

    image: Image.Image
    """Upright RGB image at its own size."""
    pixels: Float[Tensor, "3 H W"]
    """The image at the working size, normalised."""
    source: str | None
    """Where the image came from."""
    sequence: str | None = None
    """The video that it is a frame of."""


class Segmenter:
    """The one way from an image to a label per pixel, for anything that scores patches.

    The steps prepare, score and label are public, since evaluation adds its own between them.

    Args:
        scorer: Scores patches with one or several names per class.
        encoder: Resizes and normalises images for the scorer.
        labels: One name per class.
        class_of_name: Class of each of the scorer's names, from 0; names of the class after the
            last stand for what is none of the labels.
        logit_scale: Factor of the scores in the softmax, unless config sets one.
        config: Sizes, windows, background rule.

    Attributes:
        logit_scale: The factor in use.

    Raises:
        InputError: The config does not fit the encoder's patches.
    """

    def __init__(
        self,
        scorer: PatchScorer,
        *,
        encoder: ImageReader,
        labels: tuple[str, ...],
        class_of_name: Int[Tensor, " N"],
        logit_scale: float,
        config: SegmentConfig,
    ) -> None:
        check_config(config, patch_px=encoder.patch_size_px)
        self.logit_scale = logit_scale if config.logit_scale is None else config.logit_scale
        self._scorer = scorer
        self._encoder = encoder
        self._labels = labels
        self._class_of_name = class_of_name
        self._config = config
        self._held: tuple[str, Tensor] | None = None

    def prepare(
        self, image: Image.Image, source: str | None = None, *, sequence: str | None = None
    ) -> Prepared:
        """Resize an image to its working size and normalise it; threads may call this.

        Args:
            image: Upright RGB.
            source: Where the image came from, recorded in its result.
            sequence: The video that it is a frame of, see `SegmentConfig.stability`.

        Raises:
            InputError: The image is too elongated.
        """
        size_px = working_size_px(
            image.height, image.width, encoder=self._encoder, config=self._config
        )
        return Prepared(image, self._encoder.prepare(image, size_px=size_px), source, sequence)

    def score(self, inputs: Sequence[Float[Tensor, "3 _ _"]]) -> list[Float[Tensor, "N _ _"]]:
        """Score every name on the grid of each prepared image, averaged where windows overlap."""
        patch_px = self._encoder.patch_size_px
        return score_maps(
            inputs,
            self._scorer,
            window_px=self._config.window_px,
            window_stride_px=self._config.window_stride_px,
            patch_px=patch_px,
            cell_px=self._config.patch_stride_px or patch_px,
            batch_size=self._config.batch_size,
        )

    def label(
        self,
        scores: Float[Tensor, "N rows columns"],
        size_px: tuple[int, int],
        *,
        config: SegmentConfig | None = None,
        candidates: Sequence[int] | None = None,
        wants_confidence: bool = True,
    ) -> tuple[Int[Tensor, "H W"], Float[Tensor, "H W"]]:
        """Label every pixel of one image, see `pacl.inference.labelling.label_pixels`.

        Args:
            scores: The scores of every name.
            size_px: (height, width) of the image.
            config: Sets the background rule in place of the segmenter's.
            candidates: The only classes that compete; None: all.
            wants_confidence: Whether to compute probabilities too.
        """
        return label_pixels(
            scores,
            class_of_name=self._class_of_name.to(scores.device),
            size_px=size_px,
            logit_scale=self.logit_scale,
            is_background=build_background_rule(config or self._config),
            candidates=candidates,
            wants_confidence=wants_confidence,
        )

    def segment(self, batch: Sequence[Prepared]) -> list[Segmentation]:
        """Segment prepared images, each at its own size.

        Args:
            batch: The images; all are held in memory with their results.
        """
        results = []
        all_scores = self.score([each.pixels for each in batch])
        for each, scores in zip(batch, map(self._hold, batch, all_scores), strict=True):
            label_map, confidence = self.label(scores, (each.image.height, each.image.width))
            label_map.masked_fill_(label_map > len(self._labels), 0)
            of_name = self._class_of_name.to(scores.device)
            results.append(
                Segmentation(
                    image=each.image,
                    labels=self._labels,
                    label_map=label_map.cpu().numpy(),
                    scores=confidence.cpu().numpy(),
                    class_scores=best_of_names(scores, of_name, len(self._labels)).cpu().numpy(),
                    source=each.source,
                )
            )
        return results

    def _hold(self, each: Prepared, scores: Float[Tensor, "N _ _"]) -> Float[Tensor, "N _ _"]:
        """Average a frame's scores with those held of the frames before it.

        With h the share `SegmentConfig.stability`: s'_t = h s'_{t-1} + (1 - h) s_t.
        """
        share = self._config.stability
        if share is None or each.sequence is None:
            return scores
        if self._held is not None and self._held[0] == each.sequence:
            before = self._held[1]
            if before.shape == scores.shape:
                scores = torch.lerp(scores, before, share)
        self._held = each.sequence, scores
        return scores


def best_of_names(
    scores: Float[Tensor, "N ..."], class_of_name: Int[Tensor, " N"], n_classes: int
) -> Float[Tensor, "C ..."]:
    """Take for each class the highest of its names' scores."""
    return torch.stack([scores[class_of_name == k].amax(dim=0) for k in range(n_classes)])


def check_config(config: SegmentConfig, *, patch_px: int) -> None:
    """Refuse strides and windows that would not fall on the grid of patches.

    Raises:
        InputError: A value does not fit; the message suggests one that does.
    """
    stride_px = config.patch_stride_px or patch_px
    if stride_px > patch_px:
        raise InputError(
            f"patch stride {stride_px} px leaves gaps between patches of {patch_px} px",
            fix=f"use 1 to {patch_px}; the divisors of {patch_px} keep its grid",
        )
    step_px = grid_px(patch_px, stride_px)
    if config.window_stride_px and config.window_stride_px > (config.window_px or 0):
        raise InputError(
            f"window stride {config.window_stride_px} px leaves gaps between windows",
            why=f"window: {config.window_px} px",
            fix="give a window at least as large as its stride",
        )
    for name, value in (("window", config.window_px), ("window stride", config.window_stride_px)):
        if value and value % step_px:
            nearest = max(1, round(value / step_px)) * step_px
            raise InputError(
                f"{name} {value} px is not a multiple of {step_px} px "
                f"(patches of {patch_px} px, every {stride_px} px)",
                fix=f"use {nearest}",
            )
