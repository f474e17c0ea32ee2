"""A model loads beside a torchvision that was built for another torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MISMATCHED = """
import torch
if torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "Meta"):
    raise RuntimeError("not without its operators")
"""
BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')"
MODES = "from unittest.mock import MagicMock; InterpolationMode = MagicMock()"
LOAD = """
import pacl
model = pacl.load("storybook")
assert model.pacl.text.encode_texts(["a red house"]).isfinite().all()
import sys
assert (sys.modules["torchvision"] is None) == {is_hidden}
"""


@pytest.mark.slow
@pytest.mark.parametrize(("source", "is_hidden"), [(MISMATCHED, False), (BROKEN, True)])
def test_storybook_loads_beside_it(tmp_path: Path, source: str, is_hidden: bool) -> None:
    v2 = tmp_path / "torchvision" / "transforms" / "v2"
    v2.mkdir(parents=True)
    (v2 / "__init__.py").touch()
    (v2 / "functional.py").touch()
    (v2.parent / "__init__.py").write_text(MODES)
    (v2.parent / "functional.py").write_text("pil_to_tensor = None")
    (tmp_path / "torchvision" / "__init__.py").write_text(source)
    search = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    child = subprocess.run(
        [sys.executable, "-c", LOAD.format(is_hidden=is_hidden)],
        env=os.environ | {"PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
