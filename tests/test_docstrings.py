"""Args, Returns, Raises have one form: an entry begins with a capital, ends with a full stop."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "pacl"
SECTION = re.compile(r"^(Args|Returns|Yields|Raises):\n((?:(?:    .*)?\n)+)", re.M)
NAMED = re.compile(r"[*\w., ]+?: ")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def entries(docstring: str) -> Iterator[str]:
    """What the sections of a docstring say, name by name, each as one line without its name."""
    for section, body in SECTION.findall(inspect.cleandoc(docstring) + "\n"):
        text = textwrap.dedent(body)
        if section in ("Returns", "Yields"):
            yield " ".join(text.split())
            continue
        for entry in re.split(r"\n(?=\S)", text.strip()):
            name = NAMED.match(entry)
            yield " ".join(entry[name.end() if name else 0 :].split())


def test_entries_are_sentences() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}: {entry}"
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, DOCUMENTED)
        for entry in entries(ast.get_docstring(node, clean=False) or "")
        if entry[:1].islower() or not entry.endswith((".", "?", ":"))
    ]
    assert not wrong, f"begin with a capital or a `name`, end with a full stop: {wrong}"


def test_a_wrong_entry_is_seen() -> None:
    docstring = """Do it.

    Args:
        first: so many
            of them.
        second: Right.

    Returns:
        All of
        them
    """
    assert list(entries(docstring)) == ["so many of them.", "Right.", "All of them"]
