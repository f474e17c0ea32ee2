"""From an image to a label per pixel as a published protocol's code goes, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from pacl.data.opencv_resize import resize_bilinear
from pacl.errors import InputError
from pacl.inference.config import SegmentConfig
from pacl.inference.image_path import ImagePath
from pacl.inference.pixel_scores import Refine, WindowPamr, iter_pixel_scores, label_scores
from pacl.inference.segmenter import (
    ImageReader,
    Prepared,
    background_level,
    working_size_px,
)
from pacl.inference.windows import PatchScorer


class PixelReader(ImageReader, Protocol):
    """What a published protocol needs of an encoder."""

    def resize(self, image: Image.Image, *, size_px: tuple[int, int] | None = None) -> Tensor:
        """Resize an image to exactly (height, width), as uint8."""
        ...

    def normalise(self, images: Tensor) -> Float[Tensor, "*B 3 H W"]:
        """Normalise uint8 images that already have the wanted size."""
        ...


class PathSegmenter:
    """Prepares, scores and labels images by an `ImagePath` that upsamples twice.

    Pacl's own path, which upsamples once, is `Segmenter`'s.

    Args:
        scorer: Scores patches with one or several names per class.
        encoder: Normalises images for the scorer.
        class_of_name: Class of each of the scorer's names, from 0.
        background_class: The class that is no foreground, where one of the names' classes is.
        logit_scale: Factor of the scores in the softmax, unless config sets one.
        config: Sizes, windows, background rule.
        path: How the steps are done.

    Attributes:
        logit_scale: The factor in use.

    Raises:
        InputError: The config does not fit the encoder's patches or the path.
    """

    def __init__(
        self,
        scorer: PatchScorer,
        *,
        encoder: PixelReader,
        class_of_name: Int[Tensor, " N"],
        background_class: int | None,
        logit_scale: float,
        config: SegmentConfig,
        path: ImagePath,
    ) -> None:
        if config.background == "entropy" or config.patch_stride_px not in (
            None,
            encoder.patch_size_px,
        ):
            raise InputError("no protocol of this path has an entropy rule or a patch stride")
        self.logit_scale = logit_scale if config.logit_scale is None else config.logit_scale
        self._scorer, self._encoder = scorer, encoder
        self._class_of_name, self._background_class = class_of_name, background_class
        self._config, self._path = config, path

    def prepare(self, image: Image.Image) -> Prepared:
        """Resize an image to its working size and normalise it; threads may call this."""
        path, reader = self._path, self._encoder
        if path.size_rule == "pixels":
            short_side_px = self._config.short_side_px or reader.image_size_px
            size_px = path.size_px(image.height, image.width, short_side_px=short_side_px)
            size_px = max(size_px[0], 1), max(size_px[1], 1)
        else:
            size_px = working_size_px(
                image.height, image.width, encoder=reader, config=self._config
            )
        if path.resize_filter == "opencv":
            resized = resize_bilinear(np.asarray(image.convert("RGB")), size_px)
            pixels = torch.from_numpy(resized).permute(2, 0, 1)
        else:
            pixels = reader.resize(image, size_px=size_px)
        return Prepared(image, reader.normalise(pixels), None)

    def score(
        self, inputs: Sequence[Float[Tensor, "3 _ _"]], *, pamr: WindowPamr | None = None
    ) -> Iterable[Float[Tensor, "N _ _"]]:
        """Score every name at each prepared image's pixels.

        Args:
            inputs: Normalised images.
            pamr: Adds scores refined window by window, behind the others.
        """
        config = self._config
        return iter_pixel_scores(
            inputs,
            self._scorer,
            window_px=config.window_px,
            window_stride_px=config.window_stride_px,
            patch_px=self._encoder.patch_size_px,
            path=self._path,
            batch_size=config.batch_size,
            pamr=pamr,
        )

    def label(
        self,
        scores: Float[Tensor, "N rows columns"],
        size_px: tuple[int, int],
        *,
        config: SegmentConfig | None = None,
        candidates: Sequence[int] | None = None,
        refine: Refine | None = None,
    ) -> Int[Tensor, "H W"]:
        """Label every pixel of one image: 0 = none, k = class k - 1.

        Args:
            scores: Of every name.
            size_px: (height, width) of the image.
            config: Sets the background rule in place of the segmenter's.
            candidates: The only classes that compete; None: all.
            refine: Applied to the scores at the image's own size.
        """
        return label_scores(
            scores,
            class_of_name=self._class_of_name.to(scores.device),
            size_px=size_px,
            logit_scale=self.logit_scale,
            path=self._path,
            level=background_level(config or self._config),
            background_class=self._background_class,
            candidates=candidates,
            refine=refine,
        )[0]
