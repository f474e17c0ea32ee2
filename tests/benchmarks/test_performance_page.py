"""docs/performance.md says what the measured files say, and every benchmark's command parses."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scripts(repository: Path) -> Iterator[Any]:
    """Imports a file of benchmarks/ by its name."""
    sys.path.insert(0, str(repository / "benchmarks"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.compile's own, at its first import
        importlib.import_module("report")
    yield importlib.import_module
    sys.path.remove(str(repository / "benchmarks"))


def test_the_page_is_what_the_files_say(scripts: Any, repository: Path) -> None:
    page = (repository / "docs" / "performance.md").read_text(encoding="utf-8")
    assert page == scripts("report").render(), "run: python benchmarks/report.py"


def test_without_files_nothing_is_claimed(scripts: Any, tmp_path: Path) -> None:
    page = scripts("report").render(tmp_path)
    assert page.count("\nnot measured\n") == 6
    assert "| x baseline |" not in page


def test_a_table_compares_with_the_baseline(scripts: Any) -> None:
    def time(median: float) -> dict[str, float]:
        return {"median": median, "low": median / 2, "high": median * 2, "rounds": 20}

    rows = [
        {"variant": "library", "image_s": time(0.4), "equal_pixels": 1.0},
        {"variant": "torch-bf16", "image_s": time(0.1), "equal_pixels": 0.995, "token_error": 2e-3},
        {"variant": "onnx", "failed": "engine onnx needs onnxruntime"},
    ]
    case = {"stride_px": 16, "batch": 2, "labels_per_round": 9, "gflop": 35.0, "rows": rows}
    rates = {"matmul_flops": 1e12, "copy_bytes": 1e10}
    table = scripts("tables").inference_table(
        {
            "machine": {"device": "x"},
            "ceilings": {"float32": rates, "bfloat16": rates},
            "encoder": [case],
        }
    )
    assert "| library | 0.400 (0.200 to 0.800) | 1.00 | 9 | 100.00 % |  |" in table
    assert "| torch-bf16 | 0.100 (0.050 to 0.200) | 4.00 | 35 | 99.50 % | 2.0e-03 |" in table
    assert "| onnx | engine onnx needs onnxruntime | | | | |" in table


def test_the_commands_parse(scripts: Any) -> None:
    line = ["--device", "cuda", "--batch", "64", "16", "4", "--case-s", "30"]
    settings = scripts("inference").parse(line)
    assert settings.engines == ["torch", "torch-bf16", "torch-compiled", "torch-bf16-compiled"]
    assert (settings.batch, settings.case_s) == ([64, 16, 4], 30)


def test_the_baseline_is_the_encoder_itself(scripts: Any, tmp_path: Path) -> None:
    """transformers' forward with a stride set equals pacl's own walk."""
    import torch

    from checkpoints import write_clip
    from pacl.modeling.towers.hf import HfClip

    encoder = HfClip.from_pretrained(write_clip(tmp_path))
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        for stride in (8, 4):
            expected, expected_grid = encoder.encode_patches(images, stride_px=stride)
            found, grid = scripts("random_clip").library_tokens(encoder, stride)(images)
            assert grid == expected_grid
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
