"""Geometry and numbers of segmenting, with scorers small enough to work out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pacl.api import Model
from pacl.errors import InputError
from pacl.inference.config import SegmentConfig
from pacl.inference.segmenter import Segmenter, build_scorer, check_config, working_size_px
from pacl.modeling.compatibility import patch_similarity
from pacl.results import Segmentation

PATCH_PX = 4


class RedReader:
    """An encoder's outer side: 4 px patches, made for 16 px images, nothing normalised."""

    image_size_px = 16
    patch_size_px = PATCH_PX

    def prepare(self, image: Image.Image, *, size_px: tuple[int, int] | None = None) -> Tensor:
        assert size_px is not None
        height, width = size_px
        resized = image.resize((width, height), Image.Resampling.BOX)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255


def red_or_not(images: Tensor) -> Tensor:
    """Two names: the mean red of each patch, and a half everywhere."""
    red = F.avg_pool2d(images[:, :1], PATCH_PX)
    return torch.cat([red, torch.full_like(red, 0.5)], dim=1)


def segment(
    image: Image.Image, config: SegmentConfig | None = None, **changes: Any
) -> Segmentation:
    arguments: dict[str, Any] = {
        "encoder": RedReader(),
        "labels": ("red", "other"),
        "class_of_name": torch.tensor([0, 1]),
        "logit_scale": 10.0,
        "config": config or SegmentConfig(),
    }
    segmenter = Segmenter(red_or_not, **arguments | changes)
    return segmenter.segment([segmenter.prepare(image)])[0]


def red_square(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    image = Image.new("RGB", size)
    image.paste((255, 0, 0), box)
    return image


@pytest.mark.parametrize(
    ("config", "is_labelled"),
    [
        (SegmentConfig(), True),
        (SegmentConfig(background="probability"), True),
        (SegmentConfig(background="probability", background_level=0.999), False),
        (SegmentConfig(background="entropy"), True),
        (SegmentConfig(background="entropy", background_level=0.01), False),
        (SegmentConfig(background="entropy", background_level=0.01, logit_scale=100), True),
    ],
)
def test_background_is_zero_in_the_label_map(config: SegmentConfig, is_labelled: bool) -> None:
    result = segment(Image.new("RGB", (8, 8), (255, 0, 0)), config)
    assert (result.label_map == int(is_labelled)).all()
    assert (result.scores > 0.5).all()


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("size", [(6, 4), (4, 6), (5, 5)])
def test_a_hot_patch_lights_exactly_its_pixels(size: tuple[int, int], window: int | None) -> None:
    """One pixel of the image is one patch of the grid, so no interpolation blurs the answer."""
    width, height = size
    config = SegmentConfig(size_px=(height * PATCH_PX, width * PATCH_PX), window_px=window)
    for x, y in [(0, 0), (width - 1, 1), (2, height - 1)]:
        result = segment(red_square(size, (x, y, x + 1, y + 1)), config)
        assert result.label_map.shape == (height, width)
        assert np.argwhere(result.label_map == 1).tolist() == [[y, x]]


@pytest.mark.parametrize("is_row", [True, False])
def test_a_hot_band_keeps_its_borders_in_a_larger_image(is_row: bool) -> None:
    """Upsampling is centred: where red falls from 1 to 0, the half lies on the patch's edge."""
    box = (0, 20, 60, 40) if is_row else (20, 0, 40, 80)
    result = segment(red_square((60, 80), box), SegmentConfig(short_side_px=12))
    expected = np.full((80, 60), 2)
    left, top, right, bottom = box
    expected[top:bottom, left:right] = 1
    assert np.array_equal(result.label_map, expected)


def test_one_window_as_large_as_the_image_is_the_whole_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    whole = segment(image, SegmentConfig(size_px=(20, 20)))
    window = segment(image, SegmentConfig(size_px=(20, 20), window_px=20, window_stride_px=8))
    assert np.array_equal(whole.label_map, window.label_map)
    assert np.array_equal(whole.scores, window.scores)


@pytest.mark.parametrize("size_px", [(48, 48), (40, 56)])
def test_one_window_of_a_real_encoder_is_the_whole_image(
    model: Model, size_px: tuple[int, int]
) -> None:
    """Attention reaches across a window, so that a smaller one must give something else."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (60, 84, 3), dtype=np.uint8))
    found = {
        window_px: model.segment(
            image,
            ["a house", "the sea"],
            config=SegmentConfig(size_px=size_px, window_px=window_px, window_stride_px=stride_px),
        )
        for window_px, stride_px in ((None, None), (56, 8), (24, 8))
    }
    whole = found[None].class_scores
    np.testing.assert_allclose(found[56].class_scores, whole, atol=1e-5, rtol=0)
    assert np.abs(found[24].class_scores - whole).max() > 1e-3


def test_a_merged_grid_scores_patches_that_were_merged(model: Model) -> None:
    words = model.vocabulary(["a house", "the sea"]).text_embeds
    pixels = torch.randn(2, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    found = build_scorer(model.pacl, words, patch_stride_px=4, grid="merged")(pixels)
    with torch.inference_mode():
        tokens, grid = model.pacl.encode_patches(pixels, stride_px=4, merges=True)
        expected = patch_similarity(model.pacl.embed_tokens(tokens), words)
    assert torch.equal(found, expected.unflatten(2, grid))
    whole = build_scorer(model.pacl, words, patch_stride_px=4)(pixels)
    assert 0 < (found - whole).abs().mean() < whole.std()
    assert SegmentConfig(grid="merged").decisive()["grid"] == "merged"


def test_a_batch_of_different_shapes_equals_one_by_one() -> None:
    rng = np.random.default_rng(0)
    sizes = [(20, 30), (33, 17), (20, 30), (1, 1)]
    images = [Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in sizes]
    arguments: dict[str, Any] = {
        "encoder": RedReader(),
        "labels": ("red", "other"),
        "class_of_name": torch.tensor([0, 1]),
        "logit_scale": 10.0,
    }
    segmenter = Segmenter(red_or_not, **arguments, config=SegmentConfig(batch_size=2))
    sources = ["a", "b", "c", None]
    together = segmenter.segment(list(map(segmenter.prepare, images, sources)))
    assert [result.source for result in together] == ["a", "b", "c", None]
    for image, size, result in zip(images, sizes, together, strict=True):
        assert result.label_map.shape == size
        assert np.array_equal(result.label_map, segment(image).label_map)


def test_only_candidates_compete() -> None:
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    segmenter = Segmenter(
        red_or_not,
        encoder=RedReader(),
        labels=("red", "other"),
        class_of_name=torch.tensor([0, 1]),
        logit_scale=10.0,
        config=SegmentConfig(),
    )
    [scores] = segmenter.score([segmenter.prepare(image).pixels])
    results = [segmenter.label(scores, (8, 8), candidates=each) for each in (None, [1], [0])]
    assert [label_map.unique().tolist() for label_map, _ in results] == [[1], [2], [1]]
    assert [float(confidence.min()) < 1 for _, confidence in results] == [True, False, False]


def test_class_scores_are_the_best_of_a_classs_names() -> None:
    result = segment(
        red_square((16, 16), (0, 0, 4, 4)), labels=("thing",), class_of_name=torch.tensor([0, 0])
    )
    assert result.class_scores.shape == (1, 4, 4)
    assert result.class_scores[0, 0].tolist() == [1.0, 0.5, 0.5, 0.5]
    assert (result.label_map == 1).all()


@pytest.mark.parametrize(
    ("height", "width", "config", "expected"),
    [
        (480, 360, SegmentConfig(), (20, 16)),
        (360, 480, SegmentConfig(short_side_px=32), (32, 44)),
        (1, 1, SegmentConfig(), (16, 16)),
        (9, 9, SegmentConfig(size_px=(33, 3)), (32, 4)),
        (9, 9, SegmentConfig(size_px=(1, 1)), (4, 4)),
        (480, 360, SegmentConfig(patch_stride_px=3), (24, 12)),
    ],
)
def test_working_size_keeps_the_shape_in_whole_patches(
    height: int, width: int, config: SegmentConfig, expected: tuple[int, int]
) -> None:
    assert working_size_px(height, width, encoder=RedReader(), config=config) == expected


def test_an_elongated_image_is_refused_unless_its_size_is_given() -> None:
    with pytest.raises(InputError, match="elongated"):
        segment(Image.new("RGB", (2000, 2)))
    result = segment(Image.new("RGB", (2000, 2)), SegmentConfig(size_px=(4, 40)))
    assert result.label_map.shape == (2, 2000)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SegmentConfig(patch_stride_px=5), "patch stride 5 px leaves gaps.*\n.*1 to 4"),
        (SegmentConfig(window_px=8, patch_stride_px=3), "window 8 px.*every 3 px.*\n.*use 12"),
        (SegmentConfig(window_px=10), "window 10 px.*\n.*use 8"),
        (SegmentConfig(window_px=8, window_stride_px=2), "window stride 2 px.*\n.*use 4"),
        (SegmentConfig(window_px=8, window_stride_px=12), "gaps"),
        (SegmentConfig(window_stride_px=12), "gaps"),
    ],
)
def test_sizes_off_the_grid_are_refused(config: SegmentConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_config(config, patch_px=PATCH_PX)


@pytest.mark.parametrize(
    "bad", [{"short_side_px": 0}, {"batch_size": -1}, {"short_side_px": 8, "size_px": (8, 8)}]
)
def test_impossible_configs_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        SegmentConfig(**bad)


def test_an_unknown_background_rule_is_refused() -> None:
    config = SegmentConfig()
    object.__setattr__(config, "background", "median")  # past the type checker of the tests
    with pytest.raises(InputError, match="unknown background rule 'median'"):
        config.__post_init__()
