"""The Triton kernels: their numbers in Triton's interpreter, their code compiled for two GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kernel_checks import (
    TEMPERATURES,
    assert_close,
    assert_float32,
    draw,
    relative_error,
    value_and_gradients,
)
from pacl.modeling import compatibility
from pacl.modeling.compatibility import patch_compatibility

pytestmark = pytest.mark.slow

fused = pytest.importorskip(
    "pacl.modeling.kernels.fused", reason="triton is not installed", exc_type=ImportError
)


@pytest.mark.parametrize(
    ("size", "temperature"),
    [
        ((3, 130, 19, 64), 0.1),
        *(((5, 64, 9, 8), temperature) for temperature in TEMPERATURES),
        ((2, 65, 33, 7), 0.01),
    ],
    ids=str,
)
def test_blocks_of_texts(size: tuple[int, int, int, int], temperature: float) -> None:
    assert_float32(draw(*size), temperature, "fused")


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("size", [(2, 40, 19, 64), (1, 8, 129, 512)], ids=str)
def test_bfloat16_inputs_lose_only_the_rounding_of_the_gradient(
    size: tuple[int, int, int, int], temperature: float
) -> None:
    patches, texts = draw(*size)
    inputs = patches.bfloat16(), texts.bfloat16()
    # What rounding the gradient to bfloat16 alone costs is 1.7e-3.
    limits = {"value_error": 1e-4, "gradient_error": 2e-3, "temperature_error": 1e-4}
    assert_close(inputs, temperature, "fused", **limits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_chunks_of_images_change_nothing(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches, texts = (x.to(dtype) for x in draw(5, 7, 9, 16))
    value, gradients = value_and_gradients((patches, texts), 0.1, "fused")
    monkeypatch.setattr(fused, "WORKSPACE", 300)  # two images
    chunked, chunked_gradients = value_and_gradients((patches, texts), 0.1, "fused")
    torch.testing.assert_close(chunked, value)
    for gradient, expected in zip(chunked_gradients, gradients, strict=True):
        limit = 5e-3 if dtype == torch.bfloat16 else 1e-6
        assert relative_error(gradient, expected.double()) <= limit


class Guarded:
    """A kernel whose every buffer lies between not-a-numbers: to be neither read nor written."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **options: self._launch(grid, arguments, options)

    def _launch(self, grid: tuple[int, ...], arguments: Any, options: dict[str, Any]) -> None:
        guarded = [
            torch.nn.functional.pad(x.flatten(), (512, 512), value=torch.nan)
            if isinstance(x, Tensor)
            else x
            for x in arguments
        ]
        self._kernel[grid](*(_inner(x) if isinstance(x, Tensor) else x for x in guarded), **options)
        for original, buffer in zip(arguments, guarded, strict=True):
            if isinstance(original, Tensor):
                assert buffer[:512].isnan().all()
                assert buffer[-512:].isnan().all()
                original.copy_(_inner(buffer).view(original.shape))


def _inner(buffer: Tensor) -> Tensor:
    return buffer[512:-512]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 131, 67, 5), (3, 5, 33, 8)], ids=str)
def test_nothing_out_of_bounds(
    size: tuple[int, int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches, texts = (x.to(dtype) for x in draw(*size))
    value, gradients = value_and_gradients((patches, texts), 0.1, "fused")
    for name in ("weights_kernel", "quadratic_kernel", "coefficients_kernel"):
        monkeypatch.setattr(fused, name, Guarded(getattr(fused, name)))
    guarded, guarded_gradients = value_and_gradients((patches, texts), 0.1, "fused")
    assert torch.equal(guarded, value)
    for gradient, expected in zip(guarded_gradients, gradients, strict=True):
        assert torch.equal(gradient, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_only_the_patches_gradient(dtype: torch.dtype) -> None:
    patches, texts = (x.to(dtype) for x in draw(2, 3, 4, 5))
    _, expected = value_and_gradients((patches, texts), 0.1, "fused")
    patches.requires_grad_()
    value = patch_compatibility(patches, texts, patch_temperature=0.1, implementation="fused")
    weighting = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    (value * weighting).sum().backward()
    assert torch.equal(patches.grad, expected[0])  # type: ignore[arg-type]
    assert texts.grad is None


def test_an_older_torch_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    patches, texts = (x.bfloat16() for x in draw(2, 3, 4, 5))
    expected = patch_compatibility(patches.float(), texts.float(), implementation="fused")
    monkeypatch.setattr(fused, "HAS_WIDE_SUMS", False)
    value = patch_compatibility(patches, texts, implementation="fused")
    assert torch.equal(value, expected)


def test_types_that_differ_are_computed_in_float32() -> None:
    patches, texts = draw(2, 3, 4, 5)
    expected = patch_compatibility(patches.half(), texts.bfloat16(), implementation="naive")
    value = patch_compatibility(patches.half(), texts.bfloat16(), implementation="fused")
    torch.testing.assert_close(value, expected)


def test_what_cannot_be_fused_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    patches, texts = draw(1, 2, 3, 4)
    with pytest.raises(ValueError, match="text_embeds must not be float64"):
        patch_compatibility(patches, texts.double(), implementation="fused")
    monkeypatch.setattr(fused, "IS_INTERPRETED", False)
    with pytest.raises(ValueError, match="patch_embeds must be on an NVIDIA GPU"):
        patch_compatibility(patches, texts, implementation="fused")


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility, "_HAS_TRITON", False)
    patches, texts = draw(1, 2, 3, 4)
    patch_compatibility(patches, texts)
    with pytest.raises(ValueError, match="needs the package triton"):
        patch_compatibility(patches, texts, implementation="fused")


def test_the_operators_are_well_formed() -> None:
    patches, texts = draw(1, 2, 3, 4)
    torch.library.opcheck(fused._operator, (patches.requires_grad_(), texts, torch.tensor(0.1)))


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler for NVIDIA is for Linux")
def test_compiled_ahead_of_time_without_spills(tmp_path: Path) -> None:
    """For sm_80 and sm_90, on any machine: what a multiprocessor has room for twice, no spill."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = Path(__file__).parents[2] / "ahead_of_time.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    uses = [json.loads(line) for line in done.stdout.splitlines()]
    assert {use["capability"] for use in uses} == {80, 90}
    for use in uses:
        assert use["stack"] == 0, use
        assert use["registers"] <= 255, use
        assert use["shared"] <= 100 * 1024, use
