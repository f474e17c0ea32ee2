"""Segmenting pictures with any function that scores patches, at any size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from pacl.errors import InputError
from pacl.inference.config import SegmentConfig
from pacl.inference.labelling import BackgroundRule, above_entropy, below_probability, label_pixels
from pacl.inference.windows import PatchScorer, grid_px, score_maps
from pacl.modeling.compatibility import patch_similarity
from pacl.modeling.pacl import Pacl
from pacl.results import Segmentation
from pacl.runtime.stopwatch import Stopwatch

MAX_ASPECT = 32
"""Longest picture for its width that is accepted: beyond it, memory would run out unannounced."""


@runtime_checkable
class ImageReader(Protocol):
    """What segmenting needs to know of an encoder."""

    @property
    def image_size_px(self) -> int:
        """The side it was made for."""
        ...

    @property
    def patch_size_px(self) -> int:
        """The side of one patch."""
        ...

    def preprocess(
        self, image: Image.Image, *, size_px: tuple[int, int] | None = None
    ) -> Float[Tensor, "3 H W"]:
        """The picture resized to exactly (height, width) and normalised."""
        ...


def build_background_rule(config: SegmentConfig) -> BackgroundRule | None:
    """The function that a configuration names; None where every pixel is labelled."""
    level = background_level(config)
    if level is None:
        return None
    rule = {"probability": below_probability, "entropy": above_entropy}[config.background]
    return partial(rule, level=level)


def background_level(config: SegmentConfig) -> float | None:
    """The level that is given, or the rule's own; None where there is no rule."""
    if config.background == "none":
        return None
    own = {"probability": 0.5, "entropy": 1.5}[config.background]
    return own if config.background_level is None else config.background_level


def working_size_px(
    height: int, width: int, *, encoder: ImageReader, config: SegmentConfig
) -> tuple[int, int]:
    """Height and width a picture is resized to: whole patches and, where their stride does not
    divide them, whole strides; as near the picture's shape as they allow.

    Raises:
        InputError: the picture is more than MAX_ASPECT times as long as it is wide.
    """
    step_px = grid_px(encoder.patch_size_px, config.patch_stride_px or encoder.patch_size_px)
    if config.size_px is not None:
        tall, wide = config.size_px
    else:
        if max(height, width) > MAX_ASPECT * min(height, width):
            raise InputError(
                f"the picture is too elongated: {width} × {height} px",
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
    stopwatch: Stopwatch | None = None,
) -> PatchScorer:
    """The scorer of a PACL model: the cosine of each patch embedding with each text embedding.

    Args:
        model: embeds the patches.
        text_embeds: unit norm, one row per name.
        patch_stride_px: distance between patches; None: the patch size.
        stopwatch: told the time that the network takes, as "encoder".
    """
    watch = stopwatch or Stopwatch()

    @torch.inference_mode()
    def score_patches(images: Tensor) -> Tensor:
        with watch.time("encoder"):
            patch_embeds = model.patch_embeds(images.to(model.device), stride_px=patch_stride_px)
        similarity = patch_similarity(patch_embeds.flatten(1, 2), text_embeds)
        return similarity.unflatten(2, patch_embeds.shape[1:3])

    return score_patches


def segment_images(
    images: Sequence[Image.Image],
    scorer: PatchScorer,
    *,
    encoder: ImageReader,
    labels: tuple[str, ...],
    class_of_name: Int[Tensor, " C"],
    logit_scale: float,
    config: SegmentConfig,
    sources: Sequence[str | None] | None = None,
    candidates: Sequence[Sequence[int] | None] | None = None,
) -> list[Segmentation]:
    """Segment upright RGB pictures, each at its original size.

    Args:
        images: all held, with their results, until the call returns: give it a batch.
        scorer: for one or several names per class.
        encoder: resizes and normalises what the scorer gets.
        labels: one name per class.
        class_of_name: class of each of the scorer's names, from 0.
        logit_scale: taken where config names none.
        config: sizes, windows, background rule.
        sources: where each picture came from, noted in its result.
        candidates: per picture, the only classes that compete in it; None: all.
    """
    inputs = prepare_images(images, encoder=encoder, config=config)
    all_scores = score_inputs(inputs, scorer, patch_px=encoder.patch_size_px, config=config)
    results = []
    for index, (image, scores) in enumerate(zip(images, all_scores, strict=True)):
        class_of_name = class_of_name.to(scores.device)
        label_map, confidence = label_pixels(
            scores,
            class_of_name=class_of_name,
            size_px=(image.height, image.width),
            logit_scale=logit_scale if config.logit_scale is None else config.logit_scale,
            is_background=build_background_rule(config),
            candidates=None if candidates is None else candidates[index],
        )
        results.append(
            Segmentation(
                image=image,
                labels=labels,
                label_map=label_map.cpu().numpy(),
                scores=confidence.cpu().numpy(),
                class_scores=best_of_names(scores, class_of_name, len(labels)).cpu().numpy(),
                source=None if sources is None else sources[index],
            )
        )
    return results


def prepare_images(
    images: Sequence[Image.Image], *, encoder: ImageReader, config: SegmentConfig
) -> list[Float[Tensor, "3 _ _"]]:
    """Pictures at their working sizes, normalised.

    Raises:
        InputError: config does not fit the encoder's patches, or a picture is too elongated.
    """
    check_config(config, patch_px=encoder.patch_size_px)
    inputs = []
    for image in images:
        size_px = working_size_px(image.height, image.width, encoder=encoder, config=config)
        inputs.append(encoder.preprocess(image, size_px=size_px))
    return inputs


def score_inputs(
    inputs: Sequence[Float[Tensor, "3 _ _"]],
    scorer: PatchScorer,
    *,
    patch_px: int,
    config: SegmentConfig,
) -> list[Float[Tensor, "N _ _"]]:
    """Scores of every name on the grid of each prepared picture, averaged where windows overlap."""
    return score_maps(
        inputs,
        scorer,
        window_px=config.window_px,
        window_stride_px=config.window_stride_px,
        patch_px=patch_px,
        cell_px=config.patch_stride_px or patch_px,
        batch_size=config.batch_size,
    )


def best_of_names(
    scores: Float[Tensor, "N ..."], class_of_name: Int[Tensor, " N"], n_classes: int
) -> Float[Tensor, "C ..."]:
    """Per class the highest of its names' scores."""
    return torch.stack([scores[class_of_name == k].amax(dim=0) for k in range(n_classes)])


def check_config(config: SegmentConfig, *, patch_px: int) -> None:
    """Refuse strides and windows that would not fall on the grid of patches.

    Raises:
        InputError: names the value, and one that fits.
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
