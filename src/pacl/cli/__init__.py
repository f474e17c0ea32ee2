"""The command line: the only place that parses arguments, prints, or sets up logging.

stdout carries results (tables, or JSON with --json), stderr everything else; console.py has the
exit codes. Torch and transformers are imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from pacl.cli.align import Align, run_align
from pacl.cli.classify import Classify, run_classify
from pacl.cli.console import CANNOT_RUN, DONE, INTERRUPTED, WRONG_INPUT, result, say
from pacl.cli.data_cache import CacheData, cache_data
from pacl.cli.data_check import CheckData, check_data
from pacl.cli.data_tars import ConvertData, IndexData, convert_data, index_data
from pacl.cli.demo import DemoOptions, run_demo
from pacl.cli.doctor import Doctor, run_doctor
from pacl.cli.evaluate import Evaluate, run_evaluate
from pacl.cli.export import Export, run_export
from pacl.cli.models import ListModels, list_models
from pacl.cli.options import Help, parse_options, unknown_command
from pacl.cli.quickstart import Quickstart, run_quickstart
from pacl.cli.segment import Segment, run_segment
from pacl.cli.train import run_train
from pacl.errors import PaclError
from pacl.runtime.memory import keep_freed_memory
from pacl.training.config import TrainConfig

_EXAMPLES = """\
pacl quickstart
pacl quickstart --n-train 600 --epochs 3 --output runs/small
pacl train --data photos/captions.csv --output runs/photos
pacl train --data photos --model openai/clip-vit-base-patch16 --paper --output runs/paper
pacl segment photos/ --labels "sky,building,road,tree,car"
pacl segment "photos/**/*.jpg" --labels labels.txt --formats png,npz --json
pacl classify photos/ --labels "street,beach,forest"
pacl classify street.jpg --labels "car,boat" --score clip --json
pacl evaluate storybook
pacl evaluate voc20 ade150 --root data --model openai/clip-vit-base-patch16
pacl align storybook
pacl align data/camvid --model runs/photos --json
pacl data check photos/captions.csv
pacl data check voc20 --root data
pacl data index "shards/{00000..00099}.tar"
pacl data index shards --shard 0/4
pacl data convert photos/captions.csv --output shards
pacl data convert "large/*.tar" --output small --short-side-px 336 --workers 8
pacl data cache photos/captions.csv --output tokens
pacl data cache "shards/*.tar" --model openai/clip-vit-base-patch16 --output tokens --shard 0/4
pacl export storybook --output runs/onnx
pacl export runs/photos --output runs/onnx --patch-stride-px 8
pacl demo
pacl demo --model runs/photos --port 8000
pacl doctor
pacl doctor --json
pacl models
pacl models --runs experiments
""".splitlines()
"""Two lines to paste for each command."""


@dataclass(frozen=True)
class _Command:
    """A command: its name, its options, and what runs it."""

    name: str
    options: type
    run: Callable[[Any], int]

    @property
    def summary(self) -> str:
        """The first line of the options' docstring."""
        return (self.options.__doc__ or "").splitlines()[0]

    @property
    def examples(self) -> list[str]:
        """Lines to paste."""
        return [line for line in _EXAMPLES if f"{line} ".startswith(f"pacl {self.name} ")]


_COMMANDS = (
    _Command("quickstart", Quickstart, run_quickstart),
    _Command("train", TrainConfig, run_train),
    _Command("segment", Segment, run_segment),
    _Command("classify", Classify, run_classify),
    _Command("evaluate", Evaluate, run_evaluate),
    _Command("align", Align, run_align),
    _Command("data check", CheckData, check_data),
    _Command("data index", IndexData, index_data),
    _Command("data convert", ConvertData, convert_data),
    _Command("data cache", CacheData, cache_data),
    _Command("export", Export, run_export),
    _Command("demo", DemoOptions, run_demo),
    _Command("doctor", Doctor, run_doctor),
    _Command("models", ListModels, list_models),
)
COMMANDS = {command.name: command for command in _COMMANDS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: The words after ``pacl``; None: those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    is_debug = "--debug" in words
    _set_up_logging(is_debug=is_debug)
    keep_freed_memory()
    if "OMP_WAIT_POLICY" not in os.environ:  # before torch: its idle threads free cores sooner
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        code = _run([word for word in words if word != "--debug"])
        sys.stdout.flush()
    except KeyboardInterrupt:
        say("interrupted; what was finished is kept")
        return INTERRUPTED
    except BrokenPipeError:  # as in `pacl ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if is_debug:
            traceback.print_exc()
        say(_explain(error))
        return error.exit_code if isinstance(error, PaclError) else CANNOT_RUN
    return code


def _run(words: list[str]) -> int:
    if words in (["-V"], ["--version"]):
        result(f"pacl {metadata.version('pacl')}")
        return DONE
    if not words or words[0] in ("-h", "--help"):
        (result if words else say)(_overview(COMMANDS))
        return DONE if words else WRONG_INPUT
    name, rest = _split(words)
    if name not in COMMANDS:
        group = {key: command for key, command in COMMANDS.items() if key.startswith(f"{name} ")}
        if not group or rest[:1] not in ([], ["-h"], ["--help"]):
            raise unknown_command(" ".join([name, *rest[: bool(group)]]), list(COMMANDS))
        (result if rest else say)(_overview(group))
        return DONE if rest else WRONG_INPUT
    command = COMMANDS[name]
    options = parse_options(command.options, name=name, words=rest, examples=command.examples)
    return DONE if options is Help.SHOWN else command.run(options)


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The command's name, of one word or two, and its arguments."""
    two = " ".join(words[:2])
    return (two, words[2:]) if two in COMMANDS else (words[0], words[1:])


def _overview(commands: dict[str, _Command]) -> str:
    width = max(map(len, commands))
    lines = [
        "usage: pacl COMMAND [OPTIONS]",
        "",
        "Segment images by any words, with a model trained on image-caption pairs.",
        "",
        "commands:",
        *(f"  {name:<{width}}  {each.summary}" for name, each in commands.items()),
        "",
        "`pacl COMMAND -h` explains one. Everywhere: --debug adds the traceback of an error.",
        "",
        "examples:",
        *(f"  {command.examples[0]}" for command in list(commands.values())[:3]),
    ]
    return "\n".join(lines)


def _explain(error: Exception) -> str:
    if isinstance(error, PaclError):
        return f"error: {error}"
    what = f"error: {type(error).__name__}: {error}".replace("\n", "\n  ")
    if isinstance(error, OSError | MemoryError):
        return what
    return (
        f"{what}\n  pacl did not expect this: it may be a defect of pacl\n"
        "  fix: run it again with --debug for the traceback, and report it"
    )


def _set_up_logging(*, is_debug: bool) -> None:
    """Remarks of pacl and warnings of all to stderr; the libraries' bars on a terminal."""
    form = logging.BASIC_FORMAT if is_debug else "%(message)s"
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format=form)
    logging.getLogger("pacl").setLevel(logging.DEBUG if is_debug else logging.INFO)
    if not is_debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
