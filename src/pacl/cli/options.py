"""Options that several commands share: which images, which model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pacl.cli.console import say
from pacl.errors import InputError

if TYPE_CHECKING:
    from pacl.api import Model
    from pacl.data.sources import Source


Sources = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="SOURCE...", help_behavior_hint="(one or more)"),
]
"""Images, as ``pacl.data.sources.find_sources`` reads them."""


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

    engine: Literal[
        "auto",
        "torch",
        "torch-bf16",
        "torch-compiled",
        "torch-bf16-compiled",
        "onnx",
        "openvino",
        "openvino-bf16",
    ] = "torch"
    """What runs the encoder on images. torch, onnx and openvino compute in float32, those with
    bf16 round products to bfloat16, which changes few labels; auto: the fastest for this machine,
    perhaps in bfloat16."""

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
        model = load(self.model, device=self.device, embedder=self.embedder, engine=self.engine)
        say(f"model: {model.describe()}")
        return model


def find_named(words: tuple[str, ...], *, example: str) -> list[Source]:
    """Find the images that a command names.

    Raises:
        InputError: It names none, or one that does not exist.
    """
    from pacl.data.sources import find_sources

    if not words:
        raise InputError("no images named", fix=example)
    return find_sources(words)


def warn_of_photographs(model: Model) -> None:
    """Say what the embedded model is for."""
    from pacl.api import is_on_storybook

    if is_on_storybook(model):
        say(
            "note: this small model knows drawn Storybook scenes only; on photographs its labels "
            "mean nothing\n  for photographs: --model openai/clip-vit-base-patch16"
        )
