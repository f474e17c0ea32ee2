"""The public surface, and what importing it costs: nothing until a name is used."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import pacl

PUBLIC = [
    "EnvironmentProblem",
    "HfClip",
    "InputError",
    "Model",
    "Pacl",
    "PaclError",
    "Segmentation",
    "VisionEmbedder",
    "__version__",
    "contrastive_loss",
    "load",
    "patch_compatibility",
    "patch_similarity",
]
OPTIONAL = [
    "matplotlib",
    "transformers",
    "tokenizers",
    "tyro",
    "rich",
    "open_clip",
    "datasets",
    "onnx",
    "gradio",
]
NO_NETWORK = """
import socket
def _refuse(*args, **kwargs):
    raise AssertionError("network touched")
socket.socket.connect = _refuse
socket.getaddrinfo = _refuse
"""


def _run(code: str) -> str:
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", NO_NETWORK + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert child.stderr == ""
    return child.stdout


def test_public_names_are_these() -> None:
    assert pacl.__all__ == PUBLIC
    assert dir(pacl) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_resolves(name: str) -> None:
    assert getattr(pacl, name) is getattr(pacl, name)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segmentate'"):
        pacl.segmentate  # noqa: B018


def test_import_does_nothing() -> None:
    out = _run(
        "import random, sys, time\n"
        "before, start = random.getstate(), time.perf_counter()\n"
        "import pacl\n"
        "seconds = time.perf_counter() - start\n"
        "assert random.getstate() == before\n"
        "assert seconds < 1.0, seconds\n"
        f"print([n for n in {['torch', 'numpy', *OPTIONAL]} if n in sys.modules])\n"
    )
    assert out == "[]\n"


@pytest.mark.slow
def test_the_mathematics_needs_torch_only() -> None:
    out = _run(
        "import sys, torch\n"
        "seed = torch.initial_seed()\n"
        "from pacl import VisionEmbedder, contrastive_loss, patch_compatibility\n"
        "assert torch.initial_seed() == seed\n"
        f"print([n for n in {OPTIONAL} if n in sys.modules])\n"
    )
    assert out == "[]\n"


NEEDED_AT_ONCE = {"app.py": "gradio", "items.py": "pyarrow", "ray_data.py": "pyarrow"}
"""Modules that need a package as soon as they are imported, which is where they are used alone."""


@pytest.mark.slow
def test_every_module_imports_in_silence() -> None:
    source = Path(__file__).resolve().parents[1] / "src"
    modules = [
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(source.rglob("*.py"))
        if find_spec(NEEDED_AT_ONCE.get(path.name, "pacl"))
    ]
    code = "import importlib\n" + "".join(f"importlib.import_module({m!r})\n" for m in modules)
    assert _run(code) == ""


def test_shapes_in_signatures_are_checked_in_tests() -> None:
    with pytest.raises(TypeCheckError):
        pacl.patch_similarity(torch.ones(2, 3, 4), torch.ones(5, 6))


@pytest.mark.usefixtures("unchecked_shapes")
def test_unchecked_shapes_reach_the_function() -> None:
    with pytest.raises(ValueError, match="text_embeds"):
        pacl.patch_similarity(torch.ones(2, 3, 4), torch.ones(5, 6))


def test_error_says_what_why_and_fix() -> None:
    error = pacl.InputError("no caption column", why="found: a\nlooked for: b", fix="use --key a")
    assert str(error) == "no caption column\n  found: a\n  looked for: b\n  fix: use --key a"
    assert (error.what, error.fix, error.exit_code) == ("no caption column", "use --key a", 2)
    assert isinstance(error, pacl.PaclError)
    assert isinstance(error, ValueError)
    assert str(pacl.PaclError("only this")) == "only this"


def test_environment_problem_has_its_own_exit_code() -> None:
    error = pacl.EnvironmentProblem("disk full")
    assert error.exit_code == 3
    assert isinstance(error, RuntimeError)


def test_error_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(pacl.InputError("what", why="why", fix="fix")))
    assert (type(error), error.what, error.why, error.fix) == (
        pacl.InputError,
        "what",
        "why",
        "fix",
    )


USER_SCRIPT = """
from pathlib import Path

import pacl

model = pacl.load("storybook")
result = model.segment("scene.png", ["grass", "sky"])
areas: dict[str, float] = result.areas
written: dict[str, Path] = result.save("out", formats=["png", "json"])
label: int = result.label_map[0, 0].item()
for each in model.stream(["a.png", "b.png"], ["grass"]):
    print(each)
"""


@pytest.mark.slow
def test_a_users_script_type_checks_under_pyright_strict(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    assert files("pacl").joinpath("py.typed").is_file()
    (tmp_path / "script.py").write_text(USER_SCRIPT)
    source = Path(pacl.__file__).parents[1]
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(source)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout


def test_lowest_versions_are_those_that_pyproject_claims(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    groups = {name: v for name, v in project["optional-dependencies"].items() if name != "dev"}
    claimed = "\n".join([*project["dependencies"], *chain.from_iterable(groups.values())])
    found: dict[str, str] = dict(re.findall(r"^([\w-]+)>=([\d.]+)", claimed, re.M))
    constraints = (repository / ".github" / "lowest.txt").read_text()
    lowest: dict[str, str] = dict(re.findall(r"^([\w-]+)==(.+)$", constraints, re.M))
    assert lowest.keys() == found.keys()
    for name, version in found.items():
        assert f"{lowest[name]}.0".startswith(f"{version}."), name


def test_citation_names_this_version(repository: Path) -> None:
    citation = (repository / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.M) == [pacl.__version__]


def test_no_remedy_installs_pacl_from_a_registry(repository: Path) -> None:
    """pacl is in no registry: an error names the package that is missing."""
    for folder in ("src", "docs", "benchmarks", "recipes"):
        for path in (repository / folder).rglob("*.*"):
            if path.suffix in (".py", ".md", ".sh"):
                assert "install 'pacl" not in path.read_text("utf-8").replace('"', "'"), path
