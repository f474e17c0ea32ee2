"""From words to options, and the options that several commands share.

tyro reads the dataclasses; its complaints take the form of ours.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from pacl.cli.console import result, say
from pacl.errors import InputError

if TYPE_CHECKING:
    from pacl.api import Model
    from pacl.data.sources import Sources as FoundSources

Sources = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="SOURCE...", help_behavior_hint="(one or more)"),
]
"""Images, as ``pacl.data.sources.find_sources`` reads them."""


@dataclass(frozen=True)
class ModelOptions:
    """The model to use."""

    model: str = "storybook"
    """storybook (the small model that comes with pacl), a CLIP's hub id or local directory, or
    the output directory of a training run."""

    embedder: str | None = None
    """Directory of a trained embedder to put on that CLIP; none: the one beside it, or else
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
    """Runtime of the vision tower. torch, onnx and openvino compute in float32; those with bf16
    round products to bfloat16, which changes few labels; auto: the fastest on this machine,
    perhaps in bfloat16."""

    @property
    def keywords(self) -> dict[str, Any]:
        """The keyword arguments of `pacl.load`."""
        return {"source" if k == "model" else k: value for k, value in vars(self).items()}

    def load(self, *, is_for_photographs: bool = False) -> Model:
        """Load the model and say what it is.

        Args:
            is_for_photographs: Whether to warn where the model is for drawn scenes only.

        Raises:
            InputError: There is no such model or device.
        """
        from pacl.api import is_on_storybook, load

        model = load(**self.keywords)
        say(f"model: {model.describe()}")
        if is_for_photographs and is_on_storybook(model):
            say(
                "note: this small model knows drawn Storybook scenes only; on photographs its "
                "labels mean nothing\n  for photographs: --model openai/clip-vit-base-patch16"
            )
        return model


def find_named(words: tuple[str, ...], *, example: str, every: int = 1) -> FoundSources:
    """Find the images that a command names.

    Raises:
        InputError: No image is named, or one does not exist.
    """
    from pacl.data.sources import find_sources

    if not words:
        raise InputError("no images named", fix=example)
    return find_sources(words, every=every)


def parse_shard(text: str) -> tuple[int, int]:
    """Return I and N of I/N: the part that one of several processes is to do.

    Raises:
        InputError: It is not of that form, or I is not below N.
    """
    number, _, n_shards = text.partition("/")
    if not (number.isdigit() and n_shards.isdigit() and int(number) < int(n_shards)):
        raise InputError(
            f"--shard {text} is not I/N", fix="--shard 0/2 in one process, --shard 1/2 in another"
        )
    return int(number), int(n_shards)


Options = TypeVar("Options")

_BOX = "╭╮╰╯│─|+ "


class Help(Enum):
    """Returned by parsing if the user asked for help, which is already on the screen."""

    SHOWN = "shown"


def parse_options(
    kind: type[Options], *, name: str, words: Sequence[str], examples: Sequence[str]
) -> Options | Help:
    """Read a command's options.

    Args:
        kind: A dataclass; its fields' docstrings are the help.
        name: The command's name.
        words: Its arguments.
        examples: Lines to paste, shown below the help.

    Raises:
        InputError: The words do not fit the options.
    """
    markers = (
        tyro.conf.DisallowNone,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.OmitArgPrefixes,
        tyro.conf.PositionalMetavarFromFieldName,
    )
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            return tyro.cli(kind, prog=f"pacl {name}", args=list(words), config=markers)
    except SystemExit as end:
        if not end.code:
            result("\nexamples:\n" + "\n".join(f"  {line}" for line in examples))
            return Help.SHOWN
    title, *rest = _lines_of(complaint.getvalue())
    raise InputError(
        f"pacl {name}: {title[0].lower()}{title[1:]}", why="\n".join(rest), fix=f"pacl {name} -h"
    )


def _lines_of(complaint: str) -> list[str]:
    """Return the text in tyro's boxes without frames, rules and pointers to the help."""
    lines = (line.strip(_BOX) for line in complaint.splitlines())
    return [
        line for line in lines if line.strip("-") and not line.startswith(("For full", "pacl "))
    ]


def unknown_command(name: str, known: Sequence[str]) -> InputError:
    """Return the error for an unknown command, with the nearest known one."""
    near = difflib.get_close_matches(name, known, n=1)
    return InputError(
        f"no command {name!r}",
        why=f"commands: {', '.join(known)}",
        fix=f"pacl {near[0]}" if near else "pacl -h",
    )
