"""The tiled compatibility against float64, over all sizes, tiles, types and temperatures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import references
from kernel_checks import TEMPERATURES, assert_close, assert_float32, draw, value_and_gradients
from pacl.modeling.compatibility import patch_compatibility
from pacl.modeling.kernels import tiled
from pacl.modeling.kernels.forms import is_gram_cheaper
from pacl.modeling.loss import contrastive_loss


@pytest.fixture(params=["gram", "explicit"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two forms, whatever the sizes."""
    monkeypatch.setattr(tiled, "is_gram_cheaper", lambda *_, **__: request.param == "gram")
    return request.param


@pytest.fixture
def tiny_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles over images and over texts, the last of each incomplete."""
    monkeypatch.setattr(tiled, "MAX_TEXTS", 3)
    monkeypatch.setattr(tiled, "CPU_TILE", 160)


@pytest.mark.usefixtures("tiny_tiles")
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("size", [(5, 7, 9, 8), (1, 1, 3, 4), (7, 2, 1, 5), (2, 5, 33, 4)], ids=str)
def test_tiles_against_the_triple_loop(
    form: str, size: tuple[int, int, int, int], temperature: float
) -> None:
    inputs = draw(*size)
    exact = inputs[0].double(), inputs[1].double()
    expected = references.patch_compatibility(*exact, temperature)
    value = patch_compatibility(*exact, patch_temperature=temperature, implementation="tiled")
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    assert_close(exact, temperature, "tiled", value_error=1e-10, gradient_error=1e-9)
    assert_float32(inputs, temperature, "tiled")


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("n_patches", [1, 49, 196, 625])
def test_bfloat16_inputs_lose_only_the_rounding_of_the_gradient(
    n_patches: int, temperature: float
) -> None:
    patches, texts = draw(2, 3, n_patches, 512)
    inputs = patches.bfloat16(), texts.bfloat16()
    assert_close(inputs, temperature, "tiled", value_error=1e-5, gradient_error=3e-3)


def test_gradcheck(form: str) -> None:
    patches, texts = (x.double().requires_grad_() for x in draw(2, 3, 4, 3))
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def compatibility(patches: Tensor, texts: Tensor, temperature: Tensor) -> Tensor:
        return patch_compatibility(
            patches, texts, patch_temperature=temperature, implementation="tiled"
        )

    with torch.no_grad():
        patches.clamp_(-3, 3)  # finite differences need patches of comparable lengths
        patches[0, 2] = 1
    torch.autograd.gradcheck(compatibility, (patches, texts, temperature))


@pytest.mark.parametrize("needed", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1)])
def test_only_the_gradients_that_are_asked_for(form: str, needed: tuple[int, int, int]) -> None:
    inputs = [*draw(3, 4, 6, 8), torch.tensor(0.1)]
    _, expected = value_and_gradients((inputs[0], inputs[1]), 0.1, "tiled")
    for x, yes in zip(inputs, needed, strict=True):
        x.requires_grad_(bool(yes))
    value = patch_compatibility(*inputs[:2], patch_temperature=inputs[2], implementation="tiled")
    weighting = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    (value * weighting).sum().backward()
    for x, yes, gradient in zip(inputs, needed, expected, strict=True):
        assert (x.grad is not None) == bool(yes)
        if x.grad is not None:
            torch.testing.assert_close(x.grad, gradient)


@pytest.mark.parametrize("length", [1e-15, 1e15])
def test_lengths_at_the_ends_of_float32(form: str, length: float) -> None:
    patches, texts = draw(2, 3, 6, 8)
    expected = patch_compatibility(patches, texts, implementation="naive")
    value = patch_compatibility(patches * length, texts * length, implementation="tiled")
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)


def test_backward_under_autocast_changes_nothing() -> None:
    patches, texts = draw(2, 3, 4, 8)
    _, expected = value_and_gradients((patches, texts), 0.1, "tiled")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, gradients = value_and_gradients((patches, texts), 0.1, "tiled")
    for gradient, reference in zip(gradients, expected, strict=True):
        assert torch.equal(gradient, reference)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("implementation", ["tiled", "auto"])
def test_under_compile_of_the_surrounding_step(implementation: Any) -> None:
    """One graph without a break: the embedder, the compatibility, the loss, and backwards."""
    tokens, texts = draw(3, 3, 6, 8)
    embedder = torch.nn.Linear(8, 8)
    log_temperature = torch.tensor(-2.0, requires_grad=True)
    parameters = [*embedder.parameters(), log_temperature]

    def step(tokens: Tensor, texts: Tensor) -> Tensor:
        value = patch_compatibility(
            embedder(tokens),
            texts,
            patch_temperature=log_temperature.exp(),
            implementation=implementation,
        )
        return contrastive_loss(value, 10.0)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    loss, compiled_loss = step(tokens, texts), compiled(tokens, texts)
    torch.testing.assert_close(compiled_loss, loss)
    gradients = torch.autograd.grad(compiled_loss, parameters)
    for gradient, expected in zip(gradients, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_the_operators_are_well_formed() -> None:
    patches, texts = draw(2, 3, 4, 5)
    texts = torch.nn.functional.normalize(texts, dim=-1)
    arguments = (patches.requires_grad_(), texts, torch.tensor(0.1))
    torch.library.opcheck(tiled._operator, arguments)  # pyright: ignore[reportArgumentType]


def test_the_form_weighs_what_the_forms_do_not_share() -> None:
    assert is_gram_cheaper(196, 512, n_texts=4096)
    assert not is_gram_cheaper(196, 512, n_texts=10)
    assert not is_gram_cheaper(625, 512, n_texts=10**9)
    assert is_gram_cheaper(625, 512, n_texts=10**9, is_backward=True)
    assert not is_gram_cheaper(769, 512, n_texts=10**9, is_backward=True)


@pytest.mark.usefixtures("unchecked_shapes")
def test_inputs_that_do_not_fit_are_named() -> None:
    patches, texts = draw(2, 3, 4, 5)
    for name, wrong in (
        ("patch_embeds must be finite", (patches * float("nan"), texts)),
        ("text_embeds must be finite", (patches, texts * float("inf"))),
        ("text_embeds must be on the device of patch_embeds", (patches, texts.to("meta"))),
    ):
        with pytest.raises(ValueError, match=name):
            patch_compatibility(*wrong)
    with pytest.raises(ValueError, match="implementation must be one of auto, naive, tiled"):
        patch_compatibility(patches, texts, implementation="fast")  # type: ignore[arg-type]


def test_the_choice_is_by_memory_and_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pacl.modeling import compatibility

    compatibility._report.cache_clear()
    patches, texts = draw(2, 3, 4, 5)
    with caplog.at_level("INFO", logger="pacl"):
        for size in (2 * 4 * 5, 2 * 4 * 5 - 1):  # the patches are larger than the scores
            monkeypatch.setattr(tiled, "CPU_TILE", size)
            for _ in range(3):
                patch_compatibility(patches, texts)
    assert [record.message for record in caplog.records] == [
        "compatibility on cpu: the naive implementation",
        "compatibility on cpu: the tiled implementation",
    ]
