"""Options that several commands share: which pictures, which model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pacl.cli.console import say
from pacl.errors import InputError

if TYPE_CHECKING:
    from pacl.api import Model


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
    """What runs the encoder on pictures. torch, onnx and openvino compute in float32, those with
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


def is_on_storybook(model: Model) -> bool:
    """Whether a model's frozen CLIP is the embedded one, which has seen drawn scenes only."""
    from pacl.modeling.names import STORYBOOK, find_source

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
