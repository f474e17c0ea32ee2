"""Classifying against the equations written out, on a tiny CLIP with a trained-like embedder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoints import write_clip
from pacl.errors import InputError
from pacl.inference.classifier import SCORES, Classification, class_probabilities, image_logits
from pacl.inference.vocabulary import Vocabulary
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers.hf import HfClip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Pacl:
    encoder = HfClip.from_pretrained(write_clip(tmp_path_factory.mktemp("clip")))
    embedder = VisionEmbedder(encoder.width, encoder.joint_width)
    embedder.init_random(generator=torch.Generator().manual_seed(1))
    return Pacl(encoder=encoder, embedder=embedder, patch_temperature=0.2, logit_scale=7.0)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def texts(model: Pacl) -> Tensor:
    with torch.no_grad():
        return model.encoder.encode_texts(["a house", "a red boat", "snow", "a dog"])


def literal_compatibility(patches: Tensor, text: Tensor, patch_temperature: float) -> Tensor:
    unit = patches / patches.norm(dim=-1, keepdim=True)
    pooled = (unit @ text / patch_temperature).softmax(0) @ patches
    return pooled @ text / pooled.norm()


def test_scores_are_those_of_the_equations(model: Pacl, images: Tensor, texts: Tensor) -> None:
    with torch.no_grad():
        pacl = image_logits(model, images, texts, score="pacl")
        clip = image_logits(model, images, texts, score="clip")
        fusion = image_logits(model, images, texts, score="fusion")
        patches = model.patch_embeds(images).flatten(1, 2)
        cosines = model.encoder.encode_images(images) @ texts.T
    expected = torch.tensor([[literal_compatibility(p, t, 0.2) for t in texts] for p in patches])
    torch.testing.assert_close(pacl, 7.0 * expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(clip, model.encoder.logit_scale * cosines)
    torch.testing.assert_close(fusion, (pacl + clip) / 2)


@pytest.mark.parametrize("score", SCORES)
def test_a_given_scale_replaces_the_models(
    model: Pacl, images: Tensor, texts: Tensor, score: str
) -> None:
    with torch.no_grad():
        one = image_logits(model, images, texts, score=score, logit_scale=1.0)
        ten = image_logits(model, images, texts, score=score, logit_scale=10.0)
    assert one.abs().max() <= 1
    torch.testing.assert_close(ten, 10 * one)


def test_softmax_over_names_then_the_best_of_a_class(
    model: Pacl, images: Tensor, texts: Tensor
) -> None:
    vocabulary = Vocabulary(("a", "b"), texts, torch.tensor([0, 1, 0, 1]))
    found = class_probabilities(model, images, vocabulary, score="pacl")
    with torch.no_grad():
        names = image_logits(model, images, texts, score="pacl").softmax(dim=1)
    torch.testing.assert_close(found[:, 0], names[:, [0, 2]].amax(dim=1))
    torch.testing.assert_close(found[:, 1], names[:, [1, 3]].amax(dim=1))


def test_an_unknown_score_is_refused(model: Pacl, images: Tensor, texts: Tensor) -> None:
    with pytest.raises(InputError, match="unknown score"):
        image_logits(model, images, texts, score="both")


def test_a_classification_knows_its_best() -> None:
    result = Classification(("a", "b", "c"), np.array([0.2, 0.5, 0.3], np.float32), "clip")
    assert result.label == "b"
    assert [label for label, _ in result.ranked()] == ["b", "c", "a"]
    assert result.ranked()[0][1] == pytest.approx(0.5)
    labels = {"b": 0.5, "c": 0.3, "a": 0.2}
    assert result.summary() == {"label": "b", "score": "clip", "labels": labels}
