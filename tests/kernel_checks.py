"""Inputs that are hard on a kernel, and comparing it with plain float64 operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pacl.modeling.compatibility import patch_compatibility

TEMPERATURES = [1.0, 0.1, 0.01]
SIZES = [
    *((1, 512), (19, 64), (49, 768), (127, 512), (128, 768), (129, 64)),
    *((196, 768), (255, 64), (256, 512), (577, 512), (577, 768), (625, 512)),
]
"""Patches, around the sizes of blocks and those of real grids, and widths; 577 patches twice, with
fewer and with more channels."""


def draw(images: int, texts: int, patches: int, width: int) -> tuple[Tensor, Tensor]:
    """Patches that lean to text 0, lengths over four orders of magnitude, and a zero patch."""
    generator = torch.Generator().manual_seed(images + texts + patches + width)
    text_embeds = torch.randn(texts, width, generator=generator) * 2
    directions = torch.randn(images, patches, width, generator=generator) + text_embeds[0] / 4
    lengths = 10 ** (torch.rand(images, patches, 1, generator=generator) * 4 - 2)
    patch_embeds = directions * lengths
    if patches > 1:
        patch_embeds[0, patches // 2] = 0
    return patch_embeds, text_embeds


def value_and_gradients(
    inputs: tuple[Tensor, Tensor], temperature: float, implementation: Any
) -> tuple[Tensor, list[Tensor]]:
    """The compatibility, and the gradients of a random weighting of it, for all three inputs."""
    number = torch.tensor(temperature, dtype=torch.promote_types(inputs[0].dtype, torch.float32))
    patches, texts, number = (x.detach().clone().requires_grad_() for x in (*inputs, number))
    value = patch_compatibility(
        patches, texts, patch_temperature=number, implementation=implementation
    )
    weighting = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((value * weighting).sum(), [patches, texts, number])
    return value.detach(), list(gradients)


def relative_error(value: Tensor, expected: Tensor) -> float:
    return ((value.double() - expected).norm() / expected.norm()).item()


def assert_close(
    inputs: tuple[Tensor, Tensor],
    temperature: float,
    implementation: str,
    *,
    value_error: float,
    gradient_error: float,
    temperature_error: float | None = None,
) -> None:
    """Against plain operations on the same numbers in float64, see test_compatibility.py."""
    exact = inputs[0].double(), inputs[1].double()
    expected, expected_gradients = value_and_gradients(exact, temperature, "naive")
    value, gradients = value_and_gradients(inputs, temperature, implementation)
    assert (value - expected).abs().max() <= value_error
    for gradient, reference in zip(gradients[:2], expected_gradients[:2], strict=True):
        assert relative_error(gradient, reference) <= gradient_error
    # A sum over pairs that may cancel: measured against the size of one pair's term.
    error = (gradients[2] - expected_gradients[2]).abs().item()
    assert error <= (temperature_error or gradient_error) * value.numel() / temperature


def assert_float32(inputs: tuple[Tensor, Tensor], temperature: float, implementation: str) -> None:
    """As near as float32 can be asked to come, at sharp temperatures too."""
    is_sharp = temperature < 0.1
    value_error, gradient_error = (1e-5, 1e-4) if is_sharp else (1e-6, 1e-5)
    assert_close(
        inputs, temperature, implementation, value_error=value_error, gradient_error=gradient_error
    )
