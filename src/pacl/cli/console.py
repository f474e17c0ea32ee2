"""Output of the command line: results, remarks, tables, progress."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

_PLAIN_EVERY_S = 30.0

# Exit codes.
DONE = 0
SOME_FAILED = 1  # some images or rows; the others are done
WRONG_INPUT = 2
CANNOT_RUN = 3  # the environment, or a defect
INTERRUPTED = 130  # as shells report a program that Ctrl-C ended


class ShowProgress(Protocol):
    """Shows the items done, the items in all where known, and words beside the bar."""

    def __call__(self, done: int, total: int | None, detail: str = "") -> None:
        """Show them."""


def result(*texts: str) -> None:
    """Print results, to stdout."""
    for text in texts:
        print(text)


def result_json(content: object) -> None:
    """Print a result as JSON, over several lines."""
    result(json.dumps(content, indent=1))


def result_json_line(content: object) -> None:
    """Print one of several results as JSON, on a line of its own."""
    result(json.dumps(content, ensure_ascii=False))


def say(*texts: str) -> None:
    """Print remarks, to stderr."""
    for text in texts:
        print(text, file=sys.stderr)


def say_next(*words: object, **options: object) -> None:
    """Say which command comes next: its words, and those of its options that are not None."""
    line = [str(word) for word in words]
    for name, value in options.items():
        line += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    say(f"next: pacl {shlex.join(line)}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns with spaces: the first to the left, the others, which hold numbers, right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    padded = (
        [
            cell.rjust(w) if k else cell.ljust(w)
            for k, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def duration(seconds: float) -> str:
    """Format seconds for people: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def progress(title: str) -> Iterator[ShowProgress]:
    """Show a bar on a terminal; elsewhere, such as in a log, a line every half minute."""
    if not sys.stderr.isatty():
        yield _plain_progress(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    # Results on stdout are printed above the bar, unless they go elsewhere.
    with Progress(
        *columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()
    ) as bar:
        task = bar.add_task(title, total=None, detail="")

        def show(done: int, total: int | None, detail: str = "") -> None:
            bar.update(task, completed=done, total=total, detail=detail)

        yield show


class Pace:
    """How fast items are done, from the first that is shown: what was resumed does not count."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def describe(self, done: int, total: int | None, n_failed: int = 0) -> str:
        """Say the rate, where the end is known how long it still takes, and how many failed."""
        failed = f"  {n_failed} failed" if n_failed else ""
        now_s = time.monotonic()
        if self._first is None:
            self._first = done, now_s
        n_items, seconds = done - self._first[0], now_s - self._first[1]
        if n_items <= 0 or seconds <= 0:
            return failed
        rate = n_items / seconds
        words = f"{rate:.1f}/s" if rate >= 1 else f"{duration(1 / rate)} each"
        left = "" if total is None else f", {duration((total - done) / rate)} left"
        return words + left + failed


def _plain_progress(title: str) -> ShowProgress:
    last_s = time.monotonic()

    def show(done: int, total: int | None, detail: str = "") -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= _PLAIN_EVERY_S:
            last_s = time.monotonic()
            of_all = "" if total is None else f" of {total:,}"
            say(f"{title}: {done:,}{of_all}  {detail}".rstrip())

    return show
