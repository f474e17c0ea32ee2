"""The shape of the code: imports go down only, and each third-party package has one owner."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "pacl"

# From the top down: a room imports rooms of lower rows only, never one of its own row.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("quickstart", "deploy"),
    ("training",),  # scores itself on held-out data
    ("evaluation",),
    ("api",),
    ("inference",),
    ("datasets", "modeling", "results"),
    ("text", "data"),
    ("runtime",),
    ("errors",),
)
HEIGHT = {room: -row for row, rooms in enumerate(LAYERS) for room in rooms}

EVERYWHERE = {"PIL", "huggingface_hub", "jaxtyping", "numpy", "safetensors", "torch"}
# Third-party package -> the files or folders below src/pacl that may import it.
OWNERS = {
    "av": ("data/video.py",),
    "ftfy": ("text/cleaning.py",),
    "gradio": ("deploy/app.py",),
    "matplotlib": ("results/figures.py",),
    "onnxruntime": ("modeling/engines/onnx.py", "deploy/onnx.py"),
    "openvino": ("modeling/engines/openvino.py",),
    "pycocotools": ("datasets/segmentation/context.py", "results/writers/coco.py"),
    "datasets": ("data/saved.py",),
    "pyarrow": ("data/parquet.py", "deploy/"),
    "ray": ("deploy/ray_data.py",),
    "rich": ("cli/",),
    "scipy": ("datasets/classification/matlab.py",),
    "supervision": ("results/objects.py", "results/segmentation.py"),
    "timm": ("modeling/towers/timm_clip.py",),
    "tokenizers": ("modeling/towers/", "deploy/onnx.py"),
    "transformers": ("modeling/towers/",),
    "triton": ("modeling/kernels/",),
    "tyro": ("cli/",),
    "wandb": ("training/loggers.py",),
}

FILES = sorted(SOURCE.rglob("*.py"))


def _module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in FILES}


def _imports(tree: ast.AST) -> Iterator[str]:
    """Absolute names imported anywhere in ``tree``: within functions and for types only, too.

    ``from a import b`` gives ``a.b``; the caller cuts it back where ``b`` is no module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _part(module: str) -> str:
    return module.split(".")[1]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


# Each rule is one test over all files: one for each file and rule cost 1,600 tests.
BELOW_THE_ROOT = {module: path for module, path in MODULES.items() if module != "pacl"}


def test_every_module_has_a_layer() -> None:
    for module in BELOW_THE_ROOT:
        assert _part(module) in HEIGHT, f"{module}: a new room, give it a row in LAYERS"


def test_the_tables_name_only_what_exists() -> None:
    owners = {place for places in OWNERS.values() for place in places}
    for place in [*HEIGHT, *owners]:
        assert (SOURCE / place).exists() or (SOURCE / f"{place}.py").exists(), place


def test_imports_go_down() -> None:
    for module, path in BELOW_THE_ROOT.items():
        own = _part(module)
        for name in _imports(_tree(path)):
            if not name.startswith("pacl"):
                continue
            assert "." in name, f"{module}: import a name from its file, not from pacl"
            other = _part(name)
            assert other in HEIGHT, f"{module}: import {name} from its file"
            below = own == other or HEIGHT[other] < HEIGHT[own]
            assert below, f"{module} imports {name}, not below it"


def test_third_party_packages_have_one_owner() -> None:
    for path in BELOW_THE_ROOT.values():
        here = path.relative_to(SOURCE).as_posix()
        for name in _imports(_tree(path)):
            package = name.split(".")[0]
            if package == "pacl" or package in sys.stdlib_module_names or package in EVERYWHERE:
                continue
            assert package in OWNERS, f"{here}: {package} has no owner, name one in OWNERS"
            assert here.startswith(OWNERS[package]), f"{here}: {package} is {OWNERS[package]}'s"


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in BELOW_THE_ROOT.items():
        names = _imports(_tree(path))
        found = {name if name in MODULES else name.rpartition(".")[0] for name in names}
        graph[module] = (found & MODULES.keys()) - {module, "pacl"}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize("name", ["compatibility.py", "loss.py", "metrics", "kernels"])
def test_the_mathematics_knows_no_user(name: str) -> None:
    for path in FILES:
        if name in path.relative_to(SOURCE).parts:
            assert not [n for n in _imports(_tree(path)) if n.startswith("pacl.errors")]


def test_only_the_edge_talks() -> None:
    for path in BELOW_THE_ROOT.values():
        if path.is_relative_to(SOURCE / "cli"):
            continue
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"print", "input", "logging.basicConfig"}, (
                    f"{path}, line {node.lineno}: {called}() belongs to cli/"
                )


def test_functions_fit_a_screen() -> None:
    for path in BELOW_THE_ROOT.values():
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef) and path != SOURCE / "training" / "train.py":
                length = (node.end_lineno or 0) - node.lineno
                assert length < 60, f"{path}: {node.name} is too long"


def test_no_drawer_for_odds_and_ends() -> None:
    drawers = {"utils", "util", "common", "helpers", "misc"}
    assert not [path for path in FILES if path.stem in drawers]


def test_shapes_are_checked_in_tests_only() -> None:
    checkers = {"jaxtyping.jaxtyped", "jaxtyping.install_import_hook"}
    for module, path in BELOW_THE_ROOT.items():
        assert not checkers & set(_imports(_tree(path))), module


def test_the_walker_sees_nested_and_typed_imports() -> None:
    code = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import rich\n"
        "def f():\n    if True:\n        from transformers import CLIPModel\n"
    )
    tree = ast.parse(code)
    assert {"rich", "transformers.CLIPModel"} <= set(_imports(tree))
