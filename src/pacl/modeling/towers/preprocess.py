"""From an image to a normalised tensor, as the checkpoint's preprocessor_config.json says."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from pacl.errors import InputError

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop and normalise; the values of one checkpoint.

    Attributes:
        resize_px: An int: the short side gets this length. (height, width): exactly that.
            None: no resizing.
        crop_px: (height, width) of the centre crop, or None.
        mean: Per channel, for values in [0, 1].
        std: Per channel, for values in [0, 1].
        resample: PIL's filter.
        rounds_crop: Where an odd number of pixels is too many: whether half of it is rounded as
            torchvision does (to even), or down as transformers' image processors do.
    """

    resize_px: int | tuple[int, int] | None
    crop_px: tuple[int, int] | None
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    resample: Image.Resampling = Image.Resampling.BICUBIC
    rounds_crop: bool = False

    @classmethod
    def from_config(
        cls,
        values: dict[str, Any],
        *,
        family: Mapping[str, Any] | None = None,
        rounds_crop: bool = False,
    ) -> Preprocessing:
        """Read the values of a preprocessor_config.json, old (ints) and new (dicts) notation.

        Args:
            values: As read from the file.
            family: What holds where the file is silent; None: a CLIP's values.
            rounds_crop: The crop of torchvision, with which every CLIP was trained. The file does
                not say it; transformers' own processor is a pixel off on a quarter of all sizes.

        Raises:
            InputError: A size is given in a notation that CLIP checkpoints do not use.
        """
        values = {**(family or {}), **values}
        if not values.get("do_normalize", True):
            values |= {"image_mean": (0.0, 0.0, 0.0), "image_std": (1.0, 1.0, 1.0)}
        size, crop = values.get("size", 224), values.get("crop_size", 224)
        if isinstance(size, dict):
            size = size.get("shortest_edge") or _height_width(size)
        return cls(
            resize_px=size if values.get("do_resize", True) else None,
            crop_px=_height_width(crop) if values.get("do_center_crop", True) else None,
            mean=tuple(values.get("image_mean", OPENAI_MEAN)),
            std=tuple(values.get("image_std", OPENAI_STD)),
            resample=Image.Resampling(values.get("resample", Image.Resampling.BICUBIC)),
            rounds_crop=rounds_crop,
        )

    def resize(
        self, image: Image.Image | np.ndarray, *, size_px: tuple[int, int] | None = None
    ) -> UInt8[Tensor, "3 H W"]:
        """Resize one image, without normalising it.

        Args:
            image: PIL, or (H, W, 3) uint8.
            size_px: (height, width) to resize to exactly, without a crop; None: the
                checkpoint's own resizing and crop.
        """
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        image = image.convert("RGB")
        if size_px is None:
            image = self._fit(image)
        else:
            height_px, width_px = size_px
            image = image.resize((width_px, height_px), self.resample)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def normalise(self, images: UInt8[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
        """Scale (..., 3, H, W) uint8 to [0, 1], subtract the mean, divide by the deviation."""
        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
        return (images.float() / 255 - mean) / std

    def _fit(self, image: Image.Image) -> Image.Image:
        if self.resize_px is not None:
            size = self.resize_px
            if isinstance(size, int):
                short = min(image.size)
                wide, high = (size * side // short for side in image.size)
            else:
                high, wide = size
            image = image.resize((wide, high), self.resample)
        if self.crop_px is not None:
            high, wide = self.crop_px
            halve = _half_to_even if self.rounds_crop else _half_down
            left, top = halve(image.width - wide), halve(image.height - high)
            image = image.crop((left, top, left + wide, top + high))
        return image


class PreparesImages:
    """What towers share: images are prepared as their checkpoint's preprocessing says."""

    preprocessing: Preprocessing

    def resize(
        self, image: Image.Image | np.ndarray, *, size_px: tuple[int, int] | None = None
    ) -> UInt8[Tensor, "3 H W"]:
        """Resize an image by the checkpoint's rule and filter, without normalising it.

        Args:
            image: PIL, or (H, W, 3) uint8.
            size_px: (height, width) to resize to exactly, without a crop; None: the
                checkpoint's own resizing and crop.
        """
        return self.preprocessing.resize(image, size_px=size_px)

    def normalise(self, images: UInt8[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
        """Normalise uint8 images that already have the wanted size."""
        return self.preprocessing.normalise(images)

    def prepare(
        self, image: Image.Image | np.ndarray, *, size_px: tuple[int, int] | None = None
    ) -> Float[Tensor, "3 H W"]:
        """Turn an image into a normalised tensor; arguments as for `resize`."""
        return self.normalise(self.resize(image, size_px=size_px))


def _half_down(surplus_px: int) -> int:
    return surplus_px // 2


def _half_to_even(surplus_px: int) -> int:
    return round(surplus_px / 2)


def _height_width(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, dict) and "height" in size and "width" in size:
        return size["height"], size["width"]
    raise InputError(
        f"preprocessor_config.json gives a size as {size!r}",
        why="looked for: a number, shortest_edge, or height and width",
    )
