"""A torchvision that was built for another torch does not keep a model from loading."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASKS_FOR_OPERATORS = """
import torch
if torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "Meta"):
    raise RuntimeError("its operators are declared only")
"""
"""What torchvision's own Python does: it fails where there is no such operator."""
FAILS_ALWAYS = "raise RuntimeError('operator torchvision::nms does not exist')"


def run_beside(torchvision: str, directory: Path, program: str) -> None:
    (directory / "torchvision").mkdir()
    (directory / "torchvision" / "__init__.py").write_text(torchvision)
    search = os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])
    child = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr


@pytest.mark.slow
def test_storybook_loads_beside_one_that_fails(tmp_path: Path) -> None:
    program = """
import pacl
model = pacl.load("storybook")
assert model.pacl.text.encode_texts(["a red house"]).isfinite().all()
"""
    run_beside(FAILS_ALWAYS, tmp_path, program)


@pytest.mark.slow
def test_one_without_its_operators_is_imported(tmp_path: Path) -> None:
    program = """
from pacl.modeling.towers.torchvision_guard import guard_against_torchvision
guard_against_torchvision()
import torchvision
"""
    run_beside(ASKS_FOR_OPERATORS, tmp_path, program)
