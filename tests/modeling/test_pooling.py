"""The poolings and the null token against the literal loops, values and gradients, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import references
from pacl.modeling import pooling as pooling_module
from pacl.modeling.compatibility import NotFiniteError, patch_compatibility
from pacl.modeling.pooling import pooled_compatibility

SIZES = [(1, 1, 1, 1), (2, 3, 1, 5), (3, 3, 7, 4), (2, 12, 4, 16), (4, 3, 9, 2)]
OTHERS = ["mean", "max", "sparse", "own-caption"]


def draw(images: int, texts: int, patches: int, width: int) -> list[Tensor]:
    """Patches of very different lengths, one of them zero where there are several, and texts."""
    generator = torch.Generator().manual_seed(images + texts + patches + width)
    embeds = torch.randn(images, patches, width, generator=generator, dtype=torch.float64)
    embeds *= torch.rand(images, patches, 1, generator=generator, dtype=torch.float64) * 3 + 0.1
    text_embeds = torch.randn(texts, width, generator=generator, dtype=torch.float64) * 2
    return [embeds, text_embeds, torch.tensor(0.2).double(), torch.tensor(0.1).double()]


def value_and_gradients(function: Any, inputs: list[Tensor]) -> list[Tensor]:
    inputs = [x.clone().requires_grad_() for x in inputs]
    value = function(*inputs)
    generator = torch.Generator().manual_seed(1)
    weighting = torch.randn(value.shape, generator=generator, dtype=value.dtype)
    gradients = torch.autograd.grad((value * weighting).sum(), inputs, allow_unused=True)
    return [
        value.detach(),
        *(x * 0 if g is None else g for x, g in zip(inputs, gradients, strict=True)),
    ]


def assert_same(ours: Any, literal: Any, inputs: list[Tensor]) -> None:
    for value, expected in zip(
        value_and_gradients(ours, inputs), value_and_gradients(literal, inputs), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("pooling", OTHERS)
def test_every_pooling_is_its_literal_loop(pooling: Any, size: tuple[int, ...]) -> None:
    inputs = draw(*size)
    own = torch.arange(size[0]) % size[1] if pooling == "own-caption" else None

    def ours(patches: Tensor, texts: Tensor, temperature: Tensor, _: Tensor) -> Tensor:
        return pooled_compatibility(
            patches, texts, pooling=pooling, patch_temperature=temperature, own_texts=own
        )

    def literal(patches: Tensor, texts: Tensor, temperature: Tensor, _: Tensor) -> Tensor:
        numbers = None if own is None else own.tolist()
        return references.pooled_compatibility(pooling, patches, texts, temperature, None, numbers)

    assert_same(ours, literal, inputs)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_null_token_is_its_literal_loop(size: tuple[int, ...]) -> None:
    def ours(patches: Tensor, texts: Tensor, temperature: Tensor, null: Tensor) -> Tensor:
        return pooled_compatibility(
            patches, texts, patch_temperature=temperature, null_similarity=null
        )

    def literal(patches: Tensor, texts: Tensor, temperature: Tensor, null: Tensor) -> Tensor:
        return references.pooled_compatibility("pacl", patches, texts, temperature, null)

    assert_same(ours, literal, draw(*size))


def test_the_default_is_the_paper_s_compatibility_to_the_bit() -> None:
    patches, texts, temperature, _ = draw(3, 4, 5, 6)
    expected = patch_compatibility(patches, texts, patch_temperature=temperature)
    assert torch.equal(
        pooled_compatibility(patches, texts, patch_temperature=temperature), expected
    )


def test_the_null_token_lowers_what_no_patch_fits_and_weighs_the_same_beside_any_grid() -> None:
    patches = torch.tensor([[[1.0, 0.0], [1.0, 0.2]]])
    texts = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    plain = pooled_compatibility(patches, texts, patch_temperature=0.1)
    lowered = pooled_compatibility(patches, texts, patch_temperature=0.1, null_similarity=0.0)
    left = lowered / plain
    assert left[0, 0] > 0.99
    assert 0 < left[0, 1] < 0.4
    finer = pooled_compatibility(
        patches.repeat(1, 50, 1), texts, patch_temperature=0.1, null_similarity=0.0
    )
    torch.testing.assert_close(finer, lowered)


@pytest.mark.parametrize("pooling", ["max", "sparse", "null"])
def test_chunks_of_images_change_nothing(pooling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    is_null = pooling == "null"
    options: dict[str, Any] = {"null_similarity": 0.1} if is_null else {"pooling": pooling}

    def score(patches: Tensor, texts: Tensor) -> Tensor:
        return pooled_compatibility(patches, texts, patch_temperature=0.2, **options)

    inputs = draw(5, 3, 4, 6)[:2]
    whole = value_and_gradients(score, inputs)
    monkeypatch.setattr(pooling_module, "AT_ONCE", 2 * 3 * 4)
    for chunked, expected in zip(value_and_gradients(score, inputs), whole, strict=True):
        torch.testing.assert_close(chunked, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pooling", OTHERS)
def test_zero_patches_and_zero_texts_score_zero_with_finite_gradients(pooling: Any) -> None:
    patches, texts = torch.zeros(2, 2, 3), torch.zeros(2, 3)
    patches[1, 0, 1], patches[1, 1, 1], texts[0, 0] = 2, -2, 1
    own = torch.tensor([0, 1]) if pooling == "own-caption" else None

    def score(patches: Tensor, texts: Tensor) -> Tensor:
        return pooled_compatibility(patches, texts, pooling=pooling, own_texts=own)

    value, *gradients = value_and_gradients(score, [patches, texts])
    assert value.eq(0).all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_what_does_not_belong_together_is_refused() -> None:
    patches, texts = torch.ones(2, 3, 4), torch.ones(2, 4)
    with pytest.raises(ValueError, match="null token belongs to the softmax of pacl"):
        pooled_compatibility(patches, texts, pooling="max", null_similarity=0.0)
    with pytest.raises(ValueError, match="own_texts belongs to own-caption"):
        pooled_compatibility(patches, texts, pooling="own-caption")
    with pytest.raises(ValueError, match="own_texts belongs to own-caption"):
        pooled_compatibility(patches, texts, own_texts=torch.tensor([0, 1]))
    with pytest.raises(NotFiniteError):
        pooled_compatibility(patches * torch.nan, texts, pooling="mean")
