"""The compatibility and its loss against the literal loops: values and gradients, in float64."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import references
from pacl.modeling.compatibility import patch_compatibility, patch_similarity
from pacl.modeling.kernels import info_nce, naive, tiled
from pacl.modeling.loss import contrastive_loss, sigmoid_loss

# (images, texts, patches, width); many texts make the Gram form the cheaper one.
SIZES = [
    (1, 1, 1, 1),
    (1, 1, 1, 8),
    (1, 4, 5, 3),
    (3, 1, 4, 6),
    (2, 3, 1, 5),
    (3, 2, 7, 7),
    (4, 3, 9, 2),
    (3, 3, 4, 5),
    (2, 12, 4, 16),
    (3, 5, 2, 6),
]
FORMS = {"gram": True, "explicit": False}
LOSSES: dict[str, tuple[Any, Any]] = {
    "contrastive": (contrastive_loss, references.contrastive_loss),
    "sigmoid": (sigmoid_loss, references.sigmoid_loss),
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two forms, whatever the sizes."""
    chosen = FORMS[request.param]
    for file in (naive, tiled):
        monkeypatch.setattr(file, "is_gram_cheaper", lambda *_, **__: chosen)
    return request.param


def draw(images: int, texts: int, patches: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random patches of very different lengths, and texts that are not of unit length."""
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(images, patches, width, generator=generator, dtype=torch.float64)
    lengths = torch.rand(images, patches, 1, generator=generator, dtype=torch.float64) * 3 + 0.1
    text_embeds = torch.randn(texts, width, generator=generator, dtype=torch.float64) * 2
    return embeds * lengths, text_embeds


def assert_exact(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)


def value_and_gradients(function, patches: Tensor, texts: Tensor, temperature: float):
    """The result and the gradients of a random weighting of it, for all three inputs."""
    inputs = [
        x.clone().requires_grad_() for x in (patches, texts, torch.tensor(temperature).double())
    ]
    value = function(*inputs)
    generator = torch.Generator().manual_seed(1)
    weighting = torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return value.detach(), torch.autograd.grad((value * weighting).sum(), inputs)


def ours(patches: Tensor, texts: Tensor, temperature: Tensor) -> Tensor:
    return patch_compatibility(
        patches, texts, patch_temperature=temperature, implementation="naive"
    )


def assert_parity(patches: Tensor, texts: Tensor, temperature: float) -> None:
    value, gradients = value_and_gradients(ours, patches, texts, temperature)
    expected, expected_gradients = value_and_gradients(
        references.patch_compatibility, patches, texts, temperature
    )
    assert_exact(value, expected)
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        assert_exact(gradient, reference)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_parity_with_the_triple_loop(
    form: str, size: tuple[int, int, int, int], temperature: float
) -> None:
    assert_parity(*draw(*size), temperature)


@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(1, 7)),
    temperature=st.floats(0.02, 10),
    seed=st.integers(0, 1000),
)
def test_parity_at_any_size(size: tuple[int, int, int, int], temperature: float, seed: int) -> None:
    patches, texts = draw(*size, seed=seed)
    expected = references.patch_compatibility(patches, texts, temperature)
    value = patch_compatibility(patches, texts, patch_temperature=temperature)
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
    assert value.abs().max() <= 1 + 1e-12


def test_the_form_never_forms_the_gram_matrix_of_more_patches_than_the_width() -> None:
    for n_texts in (1, 64, 10**9):
        assert not naive.is_gram_cheaper(65, 64, n_texts=n_texts)
    assert naive.is_gram_cheaper(196, 512, n_texts=4096)
    assert not naive.is_gram_cheaper(625, 512, n_texts=4096)
    assert not naive.is_gram_cheaper(196, 512, n_texts=10)


def test_gradcheck(form: str) -> None:
    patches, texts = draw(2, 3, 4, 3)
    temperature = torch.tensor(0.3, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (patches, texts, temperature)]
    torch.autograd.gradcheck(ours, inputs)


def test_each_pair_is_pooled_with_its_own_weights() -> None:
    """Image 0 holds one patch of each text: asked for either, it must find that one."""
    patches = torch.eye(2, dtype=torch.float64).repeat(2, 1, 1)
    texts = torch.eye(2, dtype=torch.float64)
    value = patch_compatibility(patches, texts, patch_temperature=0.01)
    torch.testing.assert_close(value, torch.ones(2, 2, dtype=torch.float64))

    own_caption_weights = (patch_similarity(patches, texts) / 0.01).softmax(-1).diagonal().mT
    pooled = torch.einsum("it,itd->id", own_caption_weights, patches)
    own_caption = functional.normalize(pooled, dim=-1) @ texts.T
    torch.testing.assert_close(own_caption, torch.eye(2, dtype=torch.float64))  # another objective


def test_raw_lengths_count_in_the_pooling() -> None:
    """Patches 3u and 1w, u and w orthogonal, at equal weights: cosine 3/sqrt(10), not 1/sqrt(2)."""
    patches = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    text = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    value = patch_compatibility(patches, text, patch_temperature=1e9)
    assert value.item() == pytest.approx(3 / math.sqrt(10), abs=1e-8)

    random_patches, texts = draw(3, 3, 5, 4)
    unit_patches = functional.normalize(random_patches, dim=-1)
    raw, unit = (patch_compatibility(p, texts) for p in (random_patches, unit_patches))
    assert (raw - unit).abs().max() > 0.01


def test_invariances() -> None:
    """Only directions of texts, ratios of patch lengths, and no order of patches matter."""
    patches, texts = draw(3, 4, 6, 5)
    value = patch_compatibility(patches, texts, patch_temperature=0.2)
    per_image = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)[:, None, None]
    per_text = torch.tensor([0.01, 1.0, 7.0, 100.0], dtype=torch.float64)[:, None]
    scaled = patch_compatibility(patches * per_image, texts * per_text, patch_temperature=0.2)
    shuffled = patch_compatibility(patches.flip(1), texts, patch_temperature=0.2)
    assert_exact(scaled, value)
    assert_exact(shuffled, value)


def test_one_patch_gives_its_cosine() -> None:
    patches, texts = draw(3, 4, 1, 5)
    expected = patch_similarity(patches, texts).squeeze(-1)
    assert_exact(patch_compatibility(patches, texts), expected)


def test_a_zero_patch_has_cosine_zero(form: str) -> None:
    patches, texts = draw(2, 3, 4, 6)
    patches[0, 2] = 0
    texts[1] = 0
    assert patch_similarity(patches, texts)[0, :, 2].eq(0).all()
    assert patch_similarity(patches, texts)[:, 1].eq(0).all()
    assert_parity(patches, texts, 0.1)


def test_an_image_of_zero_patches_has_compatibility_zero(form: str) -> None:
    patches, texts = draw(2, 3, 4, 6)
    patches[1] = 0
    value, gradients = value_and_gradients(ours, patches, texts, 0.1)
    assert value[1].eq(0).all()
    assert value[0].ne(0).all()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert_parity(patches, texts, 0.1)


def test_patches_that_cancel(form: str) -> None:
    """Opposite patches at right angles to the text pool to exactly zero."""
    patches = torch.tensor([[[0.0, 2.0, 0.0], [0.0, -2.0, 0.0]]], dtype=torch.float64)
    text = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    value, gradients = value_and_gradients(ours, patches, text, 1.0)
    assert value.item() == 0
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("seed", range(5))
def test_never_above_one_where_float32_patches_nearly_cancel(form: str, seed: int) -> None:
    patches, texts = draw(2, 3, 3, 8, seed=seed)
    pairs = torch.cat([patches, -patches + 1e-6], dim=1).float()
    value = patch_compatibility(pairs, texts.float(), patch_temperature=1e4)
    assert value.abs().max() <= 1 + 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_inputs_are_computed_in_float32(form: str, dtype: torch.dtype) -> None:
    patches, texts = (x.to(dtype) for x in draw(3, 4, 6, 8))
    value = patch_compatibility(patches, texts, patch_temperature=0.05)
    expected = references.patch_compatibility(patches.double(), texts.double(), 0.05)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    assert patch_similarity(patches, texts).dtype == torch.float32

    patches.requires_grad_()
    patch_compatibility(patches, texts).sum().backward()
    assert patches.grad is not None
    assert patches.grad.dtype == dtype


def test_the_larger_type_wins() -> None:
    patches, texts = draw(2, 3, 4, 5)
    assert patch_compatibility(patches.half(), texts).dtype == torch.float64
    assert patch_compatibility(patches, texts.bfloat16()).dtype == torch.float64


def test_autocast_changes_nothing() -> None:
    patches, texts = (x.float() for x in draw(3, 3, 4, 5))
    value = patch_compatibility(patches, texts)
    loss = contrastive_loss(value, 100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(patch_compatibility(patches, texts), value)
        assert torch.equal(contrastive_loss(value, 100.0), loss)
        similarity = patch_similarity(patches, texts)
    assert torch.equal(similarity, patch_similarity(patches, texts))


def test_similarity_is_the_cosine_of_every_pair() -> None:
    patches, texts = draw(2, 3, 4, 5)
    similarity = patch_similarity(patches, texts)
    assert similarity.shape == (2, 3, 4)
    for i, c, t in torch.cartesian_prod(*(torch.arange(n) for n in similarity.shape)).tolist():
        expected = references.cosine(patches[i, t], texts[c])
        assert_exact(similarity[i, c, t], expected)
    same = patch_similarity(patches.float(), patches[0].float())
    assert same.abs().max() <= 1


def test_no_texts_or_no_images() -> None:
    patches, texts = draw(2, 3, 4, 5)
    assert patch_compatibility(patches, texts[:0]).shape == (2, 0)
    assert patch_compatibility(patches[:0], texts).shape == (0, 3)
    assert patch_similarity(patches, texts[:0]).shape == (2, 0, 4)


def test_the_defaults_are_the_papers() -> None:
    assert inspect.signature(patch_compatibility).parameters["patch_temperature"].default == 1.0
    patches, texts = draw(2, 3, 4, 5)
    expected = references.patch_compatibility(patches, texts)
    assert_exact(patch_compatibility(patches, texts), expected)


@pytest.mark.parametrize("value", [0, 0.0, -1, -0.07, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", [lambda x: x, torch.tensor], ids=["number", "tensor"])
def test_a_temperature_must_be_finite_and_above_zero(make, value: float) -> None:
    with pytest.raises(ValueError, match="patch_temperature must be a finite number above 0"):
        patch_compatibility(*draw(2, 2, 3, 4), patch_temperature=make(value))


def test_a_temperature_is_one_number() -> None:
    with pytest.raises(ValueError, match="patch_temperature must be one number"):
        patch_compatibility(*draw(2, 2, 3, 4), patch_temperature=torch.ones(2))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("function", [patch_compatibility, patch_similarity])
@pytest.mark.parametrize(
    ("patches", "texts", "message"),
    [
        (torch.ones(3, 4), torch.ones(2, 4), r"patch_embeds must have shape .* got \(3, 4\)"),
        (torch.ones(1, 3, 4), torch.ones(4), r"text_embeds must have shape .* got \(4,\)"),
        (torch.ones(1, 3, 4), torch.ones(1, 2, 4), "text_embeds must have shape"),
        (torch.ones(1, 3, 4), torch.ones(2, 5), "text_embeds must have the width .* 4, got 5"),
        (torch.ones(1, 0, 4), torch.ones(2, 4), "patch_embeds has no patches"),
        (torch.ones(1, 3, 4).int(), torch.ones(2, 4), "patch_embeds must be floating point"),
        (torch.ones(1, 3, 4), torch.ones(2, 4).long(), "text_embeds must be floating point"),
    ],
)
def test_wrong_embeds_are_named(function, patches: Tensor, texts: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(patches, texts)


# --- the loss ---------------------------------------------------------------------------------


def test_the_loss_is_clips() -> None:
    compatibility = torch.rand(5, 5, dtype=torch.float64) * 2 - 1
    target = torch.arange(5)
    rows = functional.cross_entropy(20 * compatibility, target)
    columns = functional.cross_entropy(20 * compatibility.T, target)
    torch.testing.assert_close(contrastive_loss(compatibility, 20.0), (rows + columns) / 2)


@given(
    images=st.integers(1, 5),
    texts=st.integers(1, 5),
    seed=st.integers(0, 1000),
    chunk=st.sampled_from([None, 0, 7]),
    loss=st.sampled_from(["contrastive", "sigmoid"]),
    has_left_out=st.booleans(),
)
def test_loss_with_any_positives(
    images: int, texts: int, seed: int, chunk: int | None, loss: str, has_left_out: bool
) -> None:
    """Whole, row by row, and a row or several at a time."""
    generator = torch.Generator().manual_seed(seed)
    compatibility = torch.rand(images, texts, generator=generator, dtype=torch.float64) * 2 - 1
    positives = torch.rand(images, texts, generator=generator) < 0.4
    positives[0, 0] = True  # the reference knows no mean over nothing
    left_out = torch.rand(images, texts, generator=generator) < 0.5 if has_left_out else None
    compatibility.requires_grad_()
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    inputs = [compatibility, scale, bias] if loss == "sigmoid" else [compatibility, scale]
    numbers = inputs[1:]
    ours, literal = LOSSES[loss]
    with pytest.MonkeyPatch.context() as patch:
        if chunk is not None:
            patch.setattr(info_nce, "CHUNK", chunk)
        value = ours(compatibility, *numbers, positives=positives, left_out=left_out)
        gradients = torch.autograd.grad(3 * value, inputs)
    expected = literal(compatibility, *numbers, positives, left_out)
    assert_exact(value, expected)
    references_of = torch.autograd.grad(3 * expected, inputs)
    for gradient, reference in zip(gradients, references_of, strict=True):
        assert_exact(gradient, reference)


class LargeOutputs(TorchDispatchMode):
    """Names the operators that make a tensor of a size or larger."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.names = size, []

    def __torch_dispatch__(self, operator: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = operator(*args, **(kwargs or {}))
        for output in pytree.tree_leaves(outputs):
            if isinstance(output, Tensor) and output.numel() >= self.size and not output._is_view():
                self.names.append(operator.overloadpacket.__name__)
        return outputs


def test_a_large_loss_holds_no_second_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    compatibility = torch.rand(32, 32).requires_grad_()
    with LargeOutputs(32 * 32) as whole:
        torch.autograd.grad(contrastive_loss(compatibility, 10.0), compatibility)
    monkeypatch.setattr(info_nce, "CHUNK", 64)
    with LargeOutputs(32 * 32) as lean:
        torch.autograd.grad(contrastive_loss(compatibility, 10.0), compatibility)
    assert whole.names.count("_log_softmax") == 2
    made = [name for name in lean.names if name != "detach"]
    assert sorted(made) == ["empty_like", "eye"]  # the gradient, the positives


def test_a_large_loss_refuses_a_second_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info_nce, "CHUNK", 0)
    compatibility = torch.rand(3, 3).requires_grad_()
    loss = contrastive_loss(compatibility, 10.0)
    (gradient,) = torch.autograd.grad(loss, compatibility, create_graph=True)
    with pytest.raises(NotImplementedError, match="only once"):
        gradient.sum().backward()


def test_the_sigmoid_loss_holds_its_gradient_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info_nce, "CHUNK", 64)
    compatibility, positives = torch.rand(32, 32).requires_grad_(), torch.eye(32).bool()
    with LargeOutputs(32 * 32) as lean:
        loss = sigmoid_loss(compatibility, 10.0, -5.0, positives=positives)
        (gradient,) = torch.autograd.grad(loss, compatibility, create_graph=True)
    made = [name for name in lean.names if name != "detach" and not name.endswith("_")]
    assert sorted(made) == ["empty_like", "mul"]  # the slope, and its multiple in the backward
    with pytest.raises(NotImplementedError, match="only once"):
        gradient.sum().backward()


def test_identity_positives_are_the_default() -> None:
    compatibility = torch.rand(4, 4, dtype=torch.float64)
    identity = torch.eye(4, dtype=torch.bool)
    with_identity = contrastive_loss(compatibility, 10.0, positives=identity)
    assert torch.equal(with_identity, contrastive_loss(compatibility, 10.0))


def test_several_positives_share_the_weight() -> None:
    """Two images that name the same noun: log 2 is left, however well both match."""
    compatibility = torch.tensor([[1.0], [1.0], [-1.0]])
    positives = torch.tensor([[True], [True], [False]])
    loss = contrastive_loss(compatibility, 100.0, positives=positives)
    assert loss.item() == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize("n_texts", [0, 3])
def test_no_positive_at_all_is_no_loss(n_texts: int) -> None:
    compatibility = torch.rand(2, n_texts, requires_grad=True)
    loss = contrastive_loss(compatibility, 10.0, positives=torch.zeros(2, n_texts).bool())
    loss.backward()
    assert loss.item() == 0
    assert compatibility.grad is not None
    assert compatibility.grad.eq(0).all()


def test_the_loss_is_at_least_float32() -> None:
    loss = contrastive_loss(torch.eye(3, dtype=torch.bfloat16), torch.tensor(100.0))
    assert loss.dtype == torch.float32
    assert 0 <= loss.item() < 1e-6


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("compatibility", "positives", "message"),
    [
        (torch.ones(3), None, "compatibility must have shape"),
        (torch.ones(2, 3), None, "compatibility must be square"),
        (torch.ones(2, 3), torch.ones(3, 2).bool(), "positives must be boolean of shape"),
        (torch.ones(2, 3), torch.ones(2, 3), "positives must be boolean of shape"),
    ],
)
def test_wrong_loss_inputs_are_named(
    compatibility: Tensor, positives: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        contrastive_loss(compatibility, 1.0, positives=positives)
