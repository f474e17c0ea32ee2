"""The Triton kernels: their numbers in Triton's interpreter, their code compiled for two GPUs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pacl.compatibility import patch_compatibility

pytest.importorskip("triton")


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
    return value.detach(), list(
        torch.autograd.grad((value * weighting).sum(), [patches, texts, number])
    )


def relative_error(value: Tensor, expected: Tensor) -> float:
    return ((value.double() - expected).norm() / expected.norm()).item()


def errors(inputs: tuple[Tensor, Tensor], temperature: float) -> tuple[float, float, float]:
    """Largest error of the value; relative of the gradients; of the temperature's, per pair."""
    exact = inputs[0].double(), inputs[1].double()
    expected, expected_gradients = value_and_gradients(exact, temperature, "naive")
    value, gradients = value_and_gradients(inputs, temperature, "fused")
    of_patches, of_texts = map(relative_error, gradients[:2], expected_gradients[:2])
    of_temperature = (gradients[2] - expected_gradients[2]).abs().item()
    return (
        (value - expected).abs().max().item(),
        max(of_patches, of_texts),
        of_temperature * temperature / value.numel(),
    )


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
@pytest.mark.parametrize(
    "size", [(2, 3, 1, 64), (3, 130, 19, 64), (2, 3, 65, 512), (1, 2, 129, 80)], ids=str
)
def test_float32_against_float64(size: tuple[int, int, int, int], temperature: float) -> None:
    of_value, of_gradients, of_temperature = errors(draw(*size), temperature)
    is_sharp = temperature < 0.1
    assert of_value <= (1e-5 if is_sharp else 1e-6)
    assert of_gradients <= (1e-4 if is_sharp else 1e-5)
    assert of_temperature <= (1e-4 if is_sharp else 1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("size", [(2, 40, 19, 64), (1, 8, 129, 512)], ids=str)
def test_bfloat16_against_float64(size: tuple[int, int, int, int], temperature: float) -> None:
    patches, texts = draw(*size)
    of_value, of_gradients, of_temperature = errors(
        (patches.bfloat16(), texts.bfloat16()), temperature
    )
    print(of_value, of_gradients, of_temperature)
    assert of_value <= 1e-3
    assert of_gradients <= 3e-3
    assert of_temperature <= 3e-3
