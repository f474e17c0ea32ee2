"""What every implementation of the compatibility must hold to."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch

from kernel_checks import (
    SIZES,
    TEMPERATURES,
    assert_float32,
    draw,
    value_and_gradients,
)
from pacl.modeling.compatibility import patch_compatibility

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture(params=["naive", "tiled", pytest.param("fused", marks=needs_triton)])
def implementation(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    ("n_patches", "width"),
    [pytest.param(*s, marks=pytest.mark.slow) if s[0] > 150 else s for s in SIZES],
)
def test_float32_against_float64(n_patches: int, width: int, implementation: Any) -> None:
    inputs = draw(1, 3, n_patches, width)
    for temperature in TEMPERATURES:
        assert_float32(inputs, temperature, implementation)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_degenerate_images(dtype: torch.dtype, implementation: Any) -> None:
    """All patches zero; patches that cancel; a zero text: compatibility 0, finite gradients."""
    patches = torch.zeros(2, 2, 3, dtype=dtype)
    patches[1, 0, 1], patches[1, 1, 1] = 2, -2
    texts = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=dtype)
    value, gradients = value_and_gradients((patches, texts), 0.1, implementation)
    assert value.eq(0).all()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_zero_patch_with_the_largest_cosine(dtype: torch.dtype, implementation: Any) -> None:
    """Its weight must not push v below what float32 holds: all other cosines here are -1."""
    patches = torch.zeros(1, 3, 4, dtype=dtype)
    patches[0, :2, 0] = torch.tensor([1.0, 2.0])
    texts = torch.tensor([[-1.0, 0.0, 0.0, 0.0]], dtype=dtype)
    value, gradients = value_and_gradients((patches, texts), 0.01, implementation)
    assert value.item() == pytest.approx(-1)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_transposed_gradient_is_read_as_it_is_meant(implementation: Any) -> None:
    """A loss over columns hands one over."""
    patches, texts = draw(2, 2, 5, 8)
    weights = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    found = []
    for gradient in (weights, weights.T.contiguous().T):
        leaf = patches.clone().requires_grad_()
        patch_compatibility(leaf, texts, implementation=implementation).backward(gradient)
        found.append(leaf.grad)
    assert torch.equal(*found)


def test_nothing_to_compare(implementation: Any) -> None:
    patches, texts = draw(2, 3, 4, 5)
    for images, words in ((patches, texts[:0]), (patches[:0], texts)):
        inputs = images.clone().requires_grad_(), words.clone().requires_grad_()
        patch_compatibility(*inputs, implementation=implementation).sum().backward()
        assert all(x.grad is not None and x.grad.eq(0).all() for x in inputs)


def test_a_second_derivative_is_exact_or_refused(implementation: Any) -> None:
    patches, texts = draw(1, 2, 3, 4)
    patches.requires_grad_()
    value = patch_compatibility(patches, texts, implementation=implementation)
    (gradient,) = torch.autograd.grad(value.square().sum(), patches, create_graph=True)
    if implementation == "naive":
        gradient.sum().backward()
        assert patches.grad is not None
    else:
        with pytest.raises(NotImplementedError, match="only once"):
            gradient.sum().backward()
