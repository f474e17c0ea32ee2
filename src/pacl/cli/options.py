"""Options that several commands share: which model, and how pictures are segmented."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pacl.cli.talk import say
from pacl.errors import InputError

if TYPE_CHECKING:
    from pacl.api import Model
    from pacl.segmenter import SegmentConfig


Sources = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="SOURCE...", help_behavior_hint="(one or more)"),
]
"""Pictures, as ``pacl.data.sources.find_images`` reads them."""


@dataclass(frozen=True)
class ModelOptions:
    """Which model."""

    model: str = "storybook"
    """storybook (the small model that comes with pacl), a CLIP's hub id or local directory, or
    the output of a training run."""

    embedder: str | None = None
    """Directory of a trained embedder to put on that CLIP; none: the one found with it, or else
    the training-free baseline."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps; none: a GPU where there is one."""

    def load(self) -> Model:
        """Load the model and say what it is.

        Raises:
            InputError: There is no such model or device.
        """
        import torch

        from pacl.api import load

        if self.device is not None:
            try:
                torch.empty(1, device=self.device)
            except (RuntimeError, AssertionError) as error:
                raise InputError(
                    f"no device {self.device!r} here",
                    why=str(error).splitlines()[0],
                    fix="leave out --device, or see: pacl doctor",
                ) from error
        model = load(self.model, device=self.device, embedder=self.embedder)
        say(f"model: {model.describe()}")
        return model


@dataclass(frozen=True)
class SegmentOptions:
    """How pictures are segmented."""

    short_side_px: int | None = None
    """Resize the picture to this short side, keeping its shape; none: the encoder's own size."""

    size_px: tuple[int, int] | None = None
    """Resize to this height and width instead, whatever the picture's shape."""

    window_px: int | None = None
    """Side of the square windows a large picture is cut into; none: the whole picture at once."""

    window_stride_px: int | None = None
    """Distance between windows; scores are averaged where they overlap. none: half a window."""

    patch_stride_px: int | None = None
    """Distance between patches; it must divide the patch size. Smaller gives finer masks, slowly
    (16 to 8 costs 4 times as much). none: the patch size."""

    background: Literal["none", "probability", "entropy"] = "none"
    """Which pixels are none of the labels: no pixel; those whose best probability is below the
    background level; those whose entropy, in nats, is above it."""

    background_level: float | None = None
    """none: 0.5 for probability, the paper's 1.5 for entropy."""

    logit_scale: float | None = None
    """Factor of the cosines in the softmax that gives probabilities; none: the model's own."""

    batch_size: int = 8
    """Pictures, or windows, that go through the encoder together."""

    def to_config(self) -> SegmentConfig:
        """The same, checked, for the segmenter.

        Raises:
            InputError: A value out of range, or values that exclude each other.
        """
        from pacl.segmenter import SegmentConfig

        return SegmentConfig(**asdict(self))


def is_on_storybook(model: Model) -> bool:
    """Whether a model's frozen CLIP is the embedded one, which has seen drawn scenes only."""
    from pacl.model import STORYBOOK, find_source

    try:
        embedded = find_source(STORYBOOK)
    except InputError:
        return False
    source = find_source(model.pacl.encoder.source)
    return Path(source).resolve() == Path(embedded).resolve()


def warn_of_photographs(model: Model) -> None:
    """Say what the embedded model is for."""
    if is_on_storybook(model):
        say(
            "note: this small model knows drawn Storybook scenes only; on photographs its labels "
            "mean nothing\n  for photographs: --model openai/clip-vit-base-patch16"
        )
