"""The calls of the README, on a tiny CLIP with random weights."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pacl
from checkpoints import write_clip
from pacl import api
from pacl.api import Model
from pacl.errors import InputError
from pacl.inference.config import SegmentConfig
from pacl.results import Segmentation
from pacl.results.segmentation import Failure


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return pacl.load(write_clip(tmp_path_factory.mktemp("clip")), device="cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures of different shapes; the second is broken, the fourth too elongated."""
    rng = np.random.default_rng(0)
    for name, size in {"a": (40, 30), "c": (33, 64), "d": (1, 400), "e": (1, 1)}.items():
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"not a picture")
    return tmp_path


LABELS = ["house", "boat", "snow"]


def test_segment_gives_labels_at_the_pictures_own_size(model: Model, photos: Path) -> None:
    result = model.segment(photos / "a.png", LABELS)
    assert isinstance(result, pacl.Segmentation)
    assert result.label_map.shape == result.scores.shape == (40, 30)
    assert set(np.unique(result.label_map)) <= {1, 2, 3}
    assert result.labels == ("house", "boat", "snow")
    assert result.class_scores.shape == (3, 5, 4)  # 40 × 32 px in patches of 8
    assert sum(result.areas.values()) == pytest.approx(1)
    assert result.source == str(photos / "a.png")


def test_segment_takes_paths_images_and_arrays(model: Model, photos: Path) -> None:
    image = Image.open(photos / "a.png")
    results = [
        model.segment(given, "house, boat, snow")
        for given in (photos / "a.png", str(photos / "a.png"), image, np.asarray(image))
    ]
    for result in results[1:]:
        assert np.array_equal(result.label_map, results[0].label_map)


def test_segment_is_the_cosine_of_patches_and_words(model: Model, photos: Path) -> None:
    result = model.segment(photos / "a.png", LABELS, config=SegmentConfig(size_px=(32, 48)))
    pixels = model.pacl.encoder.preprocess(Image.open(photos / "a.png"), size_px=(32, 48))
    with torch.no_grad():
        patches = model.patch_embeds(pixels[None])[0]
    words = model.vocabulary(LABELS).text_embeds
    cosines = torch.einsum("rcd,nd->nrc", patches / patches.norm(dim=-1, keepdim=True), words)
    np.testing.assert_allclose(result.class_scores, cosines.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        SegmentConfig(patch_stride_px=4),
        SegmentConfig(short_side_px=64, window_px=32, window_stride_px=16),
        SegmentConfig(short_side_px=64, window_px=32, patch_stride_px=2, batch_size=3),
    ],
)
def test_strides_and_windows_go_through_the_encoder(
    model: Model, photos: Path, config: SegmentConfig
) -> None:
    result = model.segment(photos / "c.png", LABELS, config=config)
    cell_px = config.patch_stride_px or 8
    short = (config.short_side_px or 32) // cell_px
    assert min(result.class_scores.shape[1:]) == short
    assert np.isfinite(result.class_scores).all()
    assert result.label_map.shape == (33, 64)


def test_stream_goes_on_after_failures_in_order(model: Model, photos: Path) -> None:
    results = list(model.stream(photos, LABELS, batch_size=2))
    kinds = [type(result) for result in results]
    assert kinds == [Segmentation, Failure, Segmentation, Failure, Segmentation]
    names = [Path(result.source or "").name for result in results]
    assert names == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    broken, elongated = results[1], results[3]
    assert isinstance(broken, Failure)
    assert "not an image" in broken.error
    assert isinstance(elongated, Failure)
    assert "elongated" in elongated.error


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_stream_equals_one_by_one(model: Model, photos: Path, batch_size: int) -> None:
    for result in model.stream(f"{photos}/[ace].png", LABELS, batch_size=batch_size):
        assert isinstance(result, Segmentation)
        alone = model.segment(result.source or "", LABELS)
        np.testing.assert_allclose(result.class_scores, alone.class_scores, atol=1e-5)


def test_stream_holds_no_more_than_a_batch(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(9):
        Image.new("RGB", (32, 32), (k, 0, 0)).save(tmp_path / f"{k}.png")
    opened: list[weakref.ref[Image.Image]] = []
    most = 0
    open_image = api.open_image

    def watched(source: Any) -> Image.Image:
        nonlocal most
        image = open_image(source)
        opened.append(weakref.ref(image))
        most = max(most, sum(reference() is not None for reference in opened))
        return image

    monkeypatch.setattr(api, "open_image", watched)
    n_seen = 0
    for result in model.stream(tmp_path, LABELS, batch_size=3):
        assert isinstance(result, Segmentation)
        n_seen += 1
        del result
    assert (n_seen, most) == (9, 3)


def test_stream_refuses_at_once(model: Model, photos: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        model.stream("nowhere", LABELS)
    with pytest.raises(InputError):
        model.stream(photos, ["house", "house"])
    with pytest.raises(InputError, match="leaves gaps"):
        model.stream(photos, LABELS, config=SegmentConfig(patch_stride_px=99))


def test_words_are_encoded_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    n_calls = 0
    encode = api.encode_vocabulary

    def counted(*args: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        return encode(*args)

    monkeypatch.setattr(api, "encode_vocabulary", counted)
    first = model.vocabulary("tree, car")
    assert model.vocabulary(["tree", "car"]) is first
    assert n_calls == 1
    assert model.vocabulary({"tree": ["tree", "pine"], "car": "car"}).class_of_name.tolist() == [
        0,
        0,
        1,
    ]


def test_classify(model: Model, photos: Path) -> None:
    result = model.classify(photos / "c.png", LABELS)
    assert result.score == "clip"  # no embedder was trained
    assert result.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert result.label in LABELS
    for score in ("pacl", "fusion"):
        other = model.classify(photos / "c.png", LABELS, score=score, logit_scale=3.0)
        assert other.score == score
        assert other.probabilities.max() < 1


def test_patch_embeds_are_a_grid(model: Model) -> None:
    images = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        assert model.patch_embeds(images).shape == (2, 4, 6, 16)
        assert model.patch_embeds(images, stride_px=4).shape == (2, 7, 11, 16)


def test_a_clip_without_an_embedder_says_so(model: Model) -> None:
    assert "training-free" in model.describe()


@pytest.mark.parametrize("labels", [[], "", ["a", "a"], ["a", " "]])
def test_empty_and_repeated_labels_are_refused(model: Model, photos: Path, labels: Any) -> None:
    with pytest.raises(InputError):
        model.segment(photos / "a.png", labels)


def test_photographs_of_streets(model: Model, camvid: Path, tmp_path: Path) -> None:
    path = sorted((camvid / "images").iterdir())[0]
    result = model.segment(path, "sky,building,road,tree,car")
    files = result.save(tmp_path)
    with Image.open(path) as photo, Image.open(files["png"]) as mask:
        assert mask.size == photo.size
        assert np.array_equal(np.asarray(mask), result.label_map)
