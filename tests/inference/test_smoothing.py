"""Smoothing over alike patches: against the literal loops, and through windows and strides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import references
from pacl.api import Model
from pacl.errors import InputError
from pacl.inference import smoothing
from pacl.inference.config import SegmentConfig
from pacl.inference.smoothing import smooth_scores

LABELS = ["a house", "the sea", "snow"]


def draw(n_patches: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(2, 5, n_patches, generator=generator)
    tokens = torch.randn(2, n_patches, 7, generator=generator) + 3  # a large part in common
    return scores, tokens


@pytest.mark.parametrize("n_patches", [1, 2, 11])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("chunk", [1, 25, 1 << 22])
def test_it_equals_the_loops(
    n_patches: int, share: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoothing, "CHUNK", chunk)
    scores, tokens = draw(n_patches)
    found = smooth_scores(scores, tokens, share=share)
    for each, of_image, own in zip(found, scores.double(), tokens.double(), strict=True):
        expected = references.smooth_scores(of_image, own, share)
        torch.testing.assert_close(each.double(), expected, atol=1e-6, rtol=1e-6)


def test_one_alike_is_the_patch_itself_and_all_are_the_image() -> None:
    scores, tokens = draw(9)
    assert torch.equal(smooth_scores(scores, tokens, share=0.01), scores)
    mean = scores.mean(dim=2, keepdim=True).expand_as(scores)
    torch.testing.assert_close(smooth_scores(scores, tokens, share=1.0), mean)


def test_a_lone_error_in_a_region_is_outvoted() -> None:
    """Ten patches of each of two textures; one patch of the first has the second's score."""
    tokens = torch.eye(2).repeat_interleave(10, dim=0)[None]
    scores = torch.tensor([1.0, 0.0]).repeat_interleave(10)
    scores[4] = 0.0
    both = torch.stack([scores, 1 - scores])[None]
    labels = smooth_scores(both, tokens, share=0.25).argmax(dim=1)[0]
    assert labels.tolist() == [0] * 10 + [1] * 10


@pytest.fixture
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("patch_stride_px", [None, 4])
def test_segmenting_smooths_the_scores_it_had(
    model: Model, image: Image.Image, patch_stride_px: int | None
) -> None:
    plain = SegmentConfig(size_px=(48, 64))
    smooth = SegmentConfig(size_px=(48, 64), smoothing=0.1, patch_stride_px=patch_stride_px)
    found = model.segment(image, LABELS, config=smooth).class_scores
    if patch_stride_px is None:
        scores = torch.from_numpy(model.segment(image, LABELS, config=plain).class_scores)
        pixels = model.pacl.vision.prepare(image, size_px=(48, 64))
        with torch.no_grad():
            tokens, _ = model.pacl.encode_patches(pixels[None])
        expected = references.smooth_scores(scores.flatten(1).double(), tokens[0].double(), 0.1)
        np.testing.assert_allclose(found.reshape(3, -1), expected.numpy(), atol=1e-5)
    else:
        assert found.shape == (3, 12, 16)


def test_a_window_is_smoothed_by_itself(model: Model, image: Image.Image) -> None:
    config = SegmentConfig(size_px=(48, 48), window_px=24, window_stride_px=24, smoothing=0.1)
    whole = model.segment(image, LABELS, config=config).class_scores
    corner = image.resize((48, 48), Image.Resampling.BICUBIC).crop((0, 0, 24, 24))
    alone = SegmentConfig(size_px=(24, 24), smoothing=0.1)
    part = model.segment(corner, LABELS, config=alone).class_scores
    np.testing.assert_allclose(whole[:, :3, :3], part, atol=1e-5)


def test_a_batch_does_not_mix_images(model: Model, image: Image.Image) -> None:
    config = SegmentConfig(size_px=(32, 32), smoothing=0.1)
    images = [image, image.rotate(90), image.resize((20, 30))]
    together = model.segment_batch(images, LABELS, config=config)
    for each, result in zip(images, together, strict=True):
        alone = model.segment(each, LABELS, config=config)
        np.testing.assert_allclose(result.class_scores, alone.class_scores, atol=1e-5)


def test_it_is_part_of_the_settings_only_where_it_is_on() -> None:
    assert "smoothing" not in SegmentConfig().decisive()
    assert SegmentConfig(smoothing=0.1).decisive()["smoothing"] == 0.1
    for wrong in (0.0, 1.5):
        with pytest.raises(InputError, match="no share"):
            SegmentConfig(smoothing=wrong)
