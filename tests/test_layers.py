"""The shape of the code: imports go down only, and each third-party package has one owner."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "pacl"

# The first part of a module's name below pacl -> its layer.
LAYERS = {
    # L0: pure mathematics, strings, errors
    "atomic": 0,
    "accuracy": 0,
    "bootstrap": 0,
    "coherence": 0,
    "errors": 0,
    "interrupts": 0,
    "compatibility": 0,
    "fusion": 0,
    "kernels": 0,
    "metrics": 0,
    "prompts": 0,
    "stopwatch": 0,
    "distributed": 0,
    # L1: the model
    "encoders": 1,
    "embedder": 1,
    "engines": 1,
    "model": 1,
    # L2: its use
    "api": 2,
    "benchmarks": 2,
    "blocks": 2,
    "checkpoint": 2,
    "classifier": 2,
    "data": 2,
    "labelling": 2,
    "objectives": 2,
    "pamr": 2,
    "probe": 2,
    "results": 2,
    "scoreboard": 2,
    "segment_config": 2,
    "segmenter": 2,
    "train_config": 2,
    "training_setup": 2,
    "vocabulary": 2,
    "windows": 2,
    # L3: jobs
    "align": 3,
    "app": 3,
    "doctor": 3,
    "evaluate": 3,
    "evaluate_classification": 3,
    "export": 3,
    "quickstart": 3,
    "scale": 3,
    "train": 3,
    # L4: the edge
    "__main__": 4,
    "cli": 4,
}
JOBS = {name for name, layer in LAYERS.items() if layer == 3}
# Jobs never import each other. quickstart is the one exception: it runs the others in order.
CONDUCTORS = {"quickstart"}

EVERYWHERE = {"PIL", "huggingface_hub", "jaxtyping", "numpy", "safetensors", "torch"}
# Third-party package -> the files or folders below src/pacl that may import it.
OWNERS = {
    "datasets": ("data/",),
    "gradio": ("app.py",),
    "matplotlib": ("results/figures.py",),
    "onnx": ("export.py",),
    "onnxruntime": ("engines/onnx.py", "export.py"),
    "openvino": ("engines/openvino.py",),
    "open_clip": ("encoders/openclip.py",),
    "pycocotools": ("benchmarks/context.py",),
    "ray": ("scale.py",),
    "rich": ("cli/",),
    "scipy": ("benchmarks/classification/matlab.py",),
    "tokenizers": ("encoders/hf.py",),
    "transformers": ("encoders/hf.py",),
    "triton": ("kernels/",),
    "tyro": ("cli/",),
}

FILES = sorted(SOURCE.rglob("*.py"))


def _module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in FILES}


def _imports(tree: ast.AST, *, of_types: bool = True) -> Iterator[str]:
    """Absolute names imported anywhere in ``tree``, also within functions.

    ``from a import b`` gives ``a.b``; the caller cuts it back where ``b`` is no module. With
    ``of_types=False``, blocks under ``if TYPE_CHECKING`` are left out.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif of_types or not _is_type_checking(node):
            yield from _imports(node, of_types=of_types)


def _is_type_checking(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def _part(module: str) -> str:
    return module.split(".")[1]


@pytest.fixture(params=[p for p in FILES if p != SOURCE / "__init__.py"], ids=_module)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def test_every_module_has_a_layer(path: Path) -> None:
    assert _part(_module(path)) in LAYERS, "give it a layer in LAYERS, and in CONTRIBUTING.md"


def test_imports_go_down(path: Path) -> None:
    own = _part(_module(path))
    for name in _imports(_tree(path)):
        if not name.startswith("pacl"):
            continue
        assert "." in name, "import a name from its file, not from pacl"
        assert _part(name) in LAYERS, f"{name}: import it from its file"
        other = _part(name)
        assert LAYERS[other] <= LAYERS[own], (
            f"{own} (L{LAYERS[own]}) imports {name}, which is above"
        )
        if own in JOBS and other in JOBS and own not in CONDUCTORS:
            assert own == other, f"job {own} imports job {other}: move what they share down"


def test_third_party_packages_have_one_owner(path: Path) -> None:
    here = path.relative_to(SOURCE).as_posix()
    for name in _imports(_tree(path)):
        package = name.split(".")[0]
        if package == "pacl" or package in sys.stdlib_module_names or package in EVERYWHERE:
            continue
        assert package in OWNERS, f"{package} has no owner: name one in OWNERS"
        assert here.startswith(OWNERS[package]), f"{package} belongs to {OWNERS[package]}"


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if module == "pacl":
            continue
        names = _imports(_tree(path), of_types=False)
        found = {name if name in MODULES else name.rpartition(".")[0] for name in names}
        graph[module] = (found & MODULES.keys()) - {module, "pacl"}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize("name", ["compatibility.py", "metrics.py", "kernels"])
def test_the_mathematics_knows_no_user(name: str) -> None:
    for path in FILES:
        if name in path.relative_to(SOURCE).parts:
            assert not [n for n in _imports(_tree(path)) if n.startswith("pacl.errors")]


def test_only_the_edge_talks(path: Path) -> None:
    if path.is_relative_to(SOURCE / "cli"):
        return
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "input", "logging.basicConfig"}, (
                f"line {node.lineno}: {called}() belongs to cli/"
            )


def test_no_drawer_for_odds_and_ends(path: Path) -> None:
    assert path.stem not in {"utils", "util", "common", "helpers", "misc"}


def test_shapes_are_checked_in_tests_only(path: Path) -> None:
    checkers = {"jaxtyping.jaxtyped", "jaxtyping.install_import_hook"}
    assert not checkers & set(_imports(_tree(path)))


def test_the_walker_sees_nested_and_typed_imports() -> None:
    code = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import rich\n"
        "def f():\n    if True:\n        from transformers import CLIPModel\n"
    )
    tree = ast.parse(code)
    assert {"rich", "transformers.CLIPModel"} <= set(_imports(tree))
    assert "rich" not in set(_imports(tree, of_types=False))
