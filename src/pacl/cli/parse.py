"""From words to options: tyro reads the dataclasses, its complaints take the form of ours."""

from __future__ import annotations

import difflib
import inspect
import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from enum import Enum
from typing import TypeVar

import tyro

from pacl.cli.console import result
from pacl.errors import InputError

Options = TypeVar("Options")

_BOX = "╭╮╰╯│─|+ "


class Help(Enum):
    """What parsing gives where the user asked for help: it is on the screen already."""

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
    """What stands in tyro's boxes, less their frames, rules and pointers to the help."""
    lines = (line.strip(_BOX) for line in complaint.splitlines())
    return [
        line for line in lines if line.strip("-") and not line.startswith(("For full", "pacl "))
    ]


def unknown_command(name: str, known: Sequence[str]) -> InputError:
    """The error for a command that there is not, with the nearest one."""
    near = difflib.get_close_matches(name, known, n=1)
    return InputError(
        f"no command {name!r}",
        why=f"commands: {', '.join(known)}",
        fix=f"pacl {near[0]}" if near else "pacl -h",
    )


def describe_in_a_line(kind: type) -> str:
    """The first line of a dataclass's docstring."""
    return (inspect.getdoc(kind) or "").splitlines()[0]
