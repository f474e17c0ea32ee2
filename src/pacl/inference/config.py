"""How images are segmented. Torch is not imported here, so that ``--help`` stays quick."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pacl.errors import InputError


@dataclass(frozen=True)
class SegmentConfig:
    """How images are segmented."""

    short_side_px: int | None = None
    """The image is resized to this short side, keeping its shape; none: the encoder's own."""

    size_px: tuple[int, int] | None = None
    """Resize to this height and width instead, whatever the image's shape."""

    window_px: int | None = None
    """Side of the square windows a large image is cut into; none: the whole image at once."""

    window_stride_px: int | None = None
    """Distance between windows; where they overlap, scores are averaged. none: half a window."""

    patch_stride_px: int | None = None
    """Distance between patches, at most their size. Smaller gives finer masks, slowly (16 to 8
    costs 4 times as much). none: the patch size."""

    grid: Literal["whole", "shifted", "merged"] = "whole"
    """How a patch stride is reached. whole: all patches at once, as in the paper. shifted: several
    shifted passes at the patch size, which a divisor of it needs; the narrower the tower, the more
    it gains: storybook 3 times the speed at a quarter of the patch size. merged: alike patches
    become one after the first two blocks of a transformer, at any stride; a ViT-B/16 runs 3 times
    as fast at a quarter of the patch size. Its labels are as good at storybook's layer -4, and
    worse for some kinds of tokens (docs/log.md)."""

    background: Literal["none", "probability", "entropy"] = "none"
    """Which pixels are none of the labels: no pixel; those whose best probability is below the
    background level; those whose entropy, in nats, is above it."""

    background_level: float | None = None
    """none: 0.5 for probability, the paper's 1.5 for entropy."""

    logit_scale: float | None = None
    """Factor of the cosines in the softmax that gives probabilities; none: the model's own."""

    smoothing: float | None = None
    """Average each patch's scores over this share of the image's (or window's) patches, those that
    the frozen encoder finds most alike; try 0.02. none: each patch by itself, as in the paper."""

    stability: float | None = None
    """Hold the labels of a video still: the share, below 1, of each frame's scores that comes from
    the frames before it; try 0.7. none: each frame by itself."""

    batch_size: int = 8
    """Images, or windows, that go through the encoder together."""

    def __post_init__(self) -> None:
        sizes = [self.short_side_px, *(self.size_px or ()), self.window_px, self.batch_size]
        sizes += [self.window_stride_px, self.patch_stride_px]
        if any(size is not None and size < 1 for size in sizes):
            raise InputError(f"sizes must be positive: {self}")
        if self.smoothing is not None and not 0 < self.smoothing <= 1:
            raise InputError(f"smoothing {self.smoothing} is no share", fix="use 0.02, at most 1")
        if self.stability is not None and not 0 < self.stability < 1:
            raise InputError(f"stability {self.stability} is no share", fix="use 0.7, below 1")
        if self.short_side_px is not None and self.size_px is not None:
            raise InputError("short_side_px and size_px exclude each other", fix="give one of them")
        if self.grid not in ("whole", "shifted", "merged"):
            raise InputError(f"unknown grid {self.grid!r}", fix="use whole, shifted or merged")
        if self.background not in ("none", "probability", "entropy"):
            raise InputError(
                f"unknown background rule {self.background!r}",
                fix="use none, probability or entropy",
            )

    def decisive(self) -> dict[str, Any]:
        """Return the settings that decide a result, by name.

        What is newer is left out where it is off, so that results of before it are known again.
        """
        settings = asdict(self)
        del settings["batch_size"]  # changes the speed only
        for name in ("smoothing", "stability", "grid"):
            if settings[name] in (None, "whole"):
                del settings[name]
        return settings
