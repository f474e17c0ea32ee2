"""The calls of the README, on a tiny CLIP with random weights."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import pacl
from checkpoints import write_clip
from pacl.api import Model
from pacl.data.sources import Source
from pacl.errors import InputError
from pacl.inference.config import SegmentConfig
from pacl.inference.stream import is_out_of_memory
from pacl.results import Segmentation
from pacl.results.segmentation import Failure


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return pacl.load(write_clip(tmp_path_factory.mktemp("clip")), device="cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images of different shapes; the second is broken, the fourth too elongated."""
    rng = np.random.default_rng(0)
    for name, size in {"a": (40, 30), "c": (33, 64), "d": (1, 400), "e": (1, 1)}.items():
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"not a image")
    return tmp_path


LABELS = ["house", "boat", "snow"]


def test_segment_gives_labels_at_the_images_own_size(model: Model, photos: Path) -> None:
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
    pixels = model.pacl.encoder.prepare(Image.open(photos / "a.png"), size_px=(32, 48))
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


def test_stream_holds_a_batch_and_reads_the_next(model: Model) -> None:
    opened: list[weakref.ref[Image.Image]] = []
    most = 0

    def read(k: int) -> Image.Image:
        image = Image.new("RGB", (32, 32), (k, 0, 0))
        opened.append(weakref.ref(image))
        return image

    sources = [Source(f"frame {k}", partial(read, k)) for k in range(20)]
    for n_seen, result in enumerate(model.stream(sources, LABELS, batch_size=3), start=1):
        assert isinstance(result, Segmentation)
        assert result.source == f"frame {n_seen - 1}"
        del result
        most = max(most, sum(reference() is not None for reference in opened))
    assert n_seen == 20
    assert most <= 6


def test_stream_tries_again_one_by_one_where_memory_runs_out(
    model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = model.pacl.encode_patches
    sizes = []

    def encode_few(images: Tensor, **options: Any) -> Any:
        sizes.append(len(images))
        if len(images) > 1 or images.shape[-1] > 48:  # the last is c.png
            torch.empty(2**55)
        return encode(images, **options)

    monkeypatch.setattr(model.pacl, "encode_patches", encode_few)
    same_size = SegmentConfig(size_px=(32, 32))
    results = list(model.stream(photos, LABELS, config=same_size))
    assert [type(each) for each in results] == [Segmentation, Failure, *[Segmentation] * 3]
    assert sizes == [4, 1, 1, 1, 1]
    results = list(model.stream(photos, LABELS))
    assert [type(each) for each in results[:3]] == [Segmentation, Failure, Failure]
    assert isinstance(results[2], Failure)
    assert results[2].error.startswith("out of memory: ")


@pytest.mark.parametrize("error", [RuntimeError("expected scalar type Float"), IndexError("3")])
def test_stream_lets_a_defect_surface(
    model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(model.pacl, "encode_patches", fail)
    with pytest.raises(type(error), match=str(error)):
        list(model.stream(photos, LABELS))


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_out_of_memory_is_told_from_a_defect(error: Any, is_memory: bool) -> None:
    assert is_out_of_memory(error) == is_memory


def test_stream_refuses_at_once(model: Model, photos: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        model.stream("nowhere", LABELS)
    with pytest.raises(InputError):
        model.stream(photos, ["house", "house"])
    with pytest.raises(InputError, match="leaves gaps"):
        model.stream(photos, LABELS, config=SegmentConfig(patch_stride_px=99))


def test_words_are_encoded_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    n_calls = 0
    encode = model.pacl.encode_classes

    def counted(*args: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        return encode(*args)

    monkeypatch.setattr(model.pacl, "encode_classes", counted)
    first = model.vocabulary("tree, car")
    assert model.vocabulary(["tree", "car"]) is first
    assert n_calls == 1
    assert model.vocabulary("tree, car", templates=["a {}."]) is not first
    assert n_calls == 2
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
