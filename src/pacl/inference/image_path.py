"""How an image reaches the encoder and how scores come back to its pixels, a knob for each step.

The defaults are pacl's own. The other values are those of the code with which the published
protocols were carried out; protocol presets set them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ImagePath:
    """From an image to the encoder, and from scores to its pixels.

    Raises:
        ValueError: Scores would not tile the image: sizes in pixels need upsampling by windows.
    """

    size_rule: Literal["patches", "pixels"] = "patches"
    """patches: the nearest size of whole patches; pixels: the short side as it is, the long one
    rounded to pixels (mmcv)."""
    long_side_px: int | None = None
    """Longest side after resizing, which then decides the scale; with size_rule pixels."""
    resize_filter: Literal["checkpoint", "opencv"] = "checkpoint"
    """opencv: bilinear without averaging, to the bit as OpenCV computes it."""
    normalisation: Literal["checkpoint", "imagenet"] = "checkpoint"
    """Mean and standard deviation of the colours that a CLIP is shown."""
    border: Literal["cut", "pad-end", "pad-both"] = "cut"
    """Sides of windows that are no whole patches: the rest is not looked at; or zeros are added
    (after normalising) below and to the right; or all around. Only the last kind is cut off again:
    otherwise the scores of the patches are stretched over the window."""
    upsampling: Literal["once", "twice"] = "once"
    """once: windows are averaged on the patch grid; twice: each window's scores are upsampled to
    its pixels, averaged there, and upsampled again to the image's own size."""
    positions: Literal["centres", "tenth"] = "centres"
    """tenth: read at grids 0.1 patches longer than they are, as DINO's code does; a grid of the
    native number of patches takes the positions as they are."""
    activation: Literal["checkpoint", "gelu"] = "checkpoint"
    """gelu: exact GELU, and 1e-6 in LayerNorm, in every block of a CLIP's vision tower."""
    score: Literal["cosine", "sigmoid"] = "cosine"
    """sigmoid: of 10 (cosine - 0.25) at each patch, which is a mask's value without a softmax."""
    pamr_at: Literal["working", "original", "windows"] = "working"
    """Size at which PAMR runs: the encoder's, the image's, or a quarter of each window's."""
    min_area_share: float | None = None
    """Classes on at most this share of an image's foreground are taken from it."""

    def __post_init__(self) -> None:
        needs_pixels = (
            self.size_rule == "pixels"
            or self.border != "cut"
            or self.score != "cosine"
            or self.pamr_at != "working"
            or self.min_area_share is not None
        )
        if self.upsampling == "once" and needs_pixels:
            raise ValueError(f"upsampling must be twice for such a path: {self}")

    @property
    def changes_clip(self) -> bool:
        """Whether a CLIP runs otherwise than its checkpoint says; other towers never do."""
        knobs = (self.normalisation, self.positions, self.activation)
        return knobs != ("checkpoint", "centres", "checkpoint")

    def size_px(self, height: int, width: int, *, short_side_px: int) -> tuple[int, int]:
        """Return the height and width that an image is resized to by the rule "pixels".

        Args:
            height: The image's, in pixels.
            width: The image's, in pixels.
            short_side_px: Of the result, unless the long side would exceed `long_side_px`.
        """
        scale = short_side_px / min(height, width)
        if self.long_side_px is not None:
            scale = min(scale, self.long_side_px / max(height, width))
        return int(height * scale + 0.5), int(width * scale + 0.5)


OWN_PATH = ImagePath()
"""pacl's own."""
