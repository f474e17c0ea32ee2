"""The documentation holds: its code runs, or it says why not; the site's pages are all there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from pacl.cli import COMMANDS, main
from pacl.cli.options import Help, parse_options
from pages import PAGES, ROOT, Block, furnish, read_blocks

BLOCKS = [(page.stem, block) for page in PAGES for block in read_blocks(page)]


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)[1:]


def test_a_block_and_its_mark_are_read(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: slow -->\n```\npacl a \\\n  b\n```\n\n```python\nx = 1\n```\n")
    marked, plain = read_blocks(page)
    assert marked == Block("", "pacl a \\\n  b\n", "slow")
    assert [" ".join(line.split()) for line in marked.commands()] == ["pacl a b"]
    assert plain == Block("python", "x = 1\n", None)


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_commands_are_understood(page: str, block: Block) -> None:
    for line in block.commands():
        if block.language == "python" or not line.startswith("pacl "):
            continue
        words = words_of(line)
        name = next(name for name in COMMANDS if words[: len(name.split())] == name.split())
        options = parse_options(
            COMMANDS[name].options,
            name=name,
            words=words[len(name.split()) :],
            examples=COMMANDS[name].examples,
        )
        assert not isinstance(options, Help)


@pytest.mark.slow
@pytest.mark.usefixtures("storybook_model", "unchecked_shapes")  # the exporter's sizes are symbols
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [block for block in read_blocks(page) if block.reason is None]
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in blocks:
        if block.language == "python":
            exec(block.code, namespace)
            continue
        for line in block.commands():
            assert line.startswith("pacl "), f"{line}: mark the block `<!-- not run: why -->`"
            assert main(words_of(line)) == 0, line


@pytest.mark.slow
@pytest.mark.usefixtures("storybook_model")
def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((ROOT / "docs" / "tour.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for cell in cells:
        exec(cell, namespace)
    scores = namespace["scores"]
    assert scores.argmax(dim=1).tolist() == [0, 1]  # pyright: ignore


def test_the_site_has_every_page() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = set(re.findall(r"[\w/]+\.md", json.dumps(site["nav"])))
    pages = {page.name for page in PAGES}
    assert named == pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.slow
def test_the_reference_names_what_exists() -> None:
    import importlib

    pytest.importorskip("gradio")
    for name in re.findall(r"^::: (\S+)$", (ROOT / "docs" / "reference.md").read_text(), re.M):
        module, _, member = name.rpartition(".")
        assert member in vars(importlib.import_module(module)), name


def test_pages_name_no_path_of_a_machine() -> None:
    for page in PAGES:
        assert not re.search(r"/(work|root|home/\w+)/", page.read_text(encoding="utf-8")), page
