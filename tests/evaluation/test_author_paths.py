"""Presets label images as their authors' code does, on sizes that are no whole patches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import author_paths
from checkpoints import write_clip
from foreign_towers import write_vit
from pacl.api import Model, load
from pacl.data.opencv_resize import resize_bilinear
from pacl.datasets.segmentation import find_benchmark
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.evaluation.predictor import Example, Predictor, build_predictor
from pacl.evaluation.presets import Preset, build_preset
from pacl.evaluation.run import as_baseline
from pacl.evaluation.task import Pamr, Task, build_candidates
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers import load_vision_tower
from pacl.modeling.towers import whole_walks as walks
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.token_kinds import TOKEN_KINDS, apply_block
from pacl.modeling.towers.vit import VitTower
from pacl.text.templates import SIMPLE
from whole_walks import CHANNELS, MASS, rfclip_literally, scclip_literally

pytestmark = pytest.mark.slow

SIZES = {"500x333": (333, 500), "640x427": (427, 640), "333x500": (500, 333)}
PATCH_PX = 16


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A small CLIP with CLIP's own patches and image size."""
    folder = write_clip(tmp_path_factory.mktemp("checkpoint") / "clip", size="small-b-16")
    return load(folder, device="cpu")


def centre(clip: Model, image: np.ndarray, kind: str) -> Model:
    """Move a CLIP's tokens towards 0: methods that average leave one label otherwise."""
    model = load(cast(HfClip, clip.pacl.encoder).source, device="cpu")
    pixels = model.pacl.encoder.prepare(image, size_px=(224, 336))[None]
    tokens, _ = model.pacl.encoder.encode_patches(pixels, kind=kind)
    bias = cast(HfClip, model.pacl.encoder).clip.vision_model.post_layernorm.bias
    bias.data -= tokens.mean(dim=(0, 1))
    return model


@pytest.fixture(
    params=["500x333", *(pytest.param(size, marks=pytest.mark.slow) for size in list(SIZES)[1:])]
)
def image(request: pytest.FixtureRequest) -> np.ndarray:
    """Blots of colour with noise."""
    height, width = SIZES[request.param]
    rng = np.random.default_rng(height)
    blots = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    pixels = np.asarray(blots.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return (pixels + rng.integers(-20, 21, pixels.shape)).clip(0, 255).astype(np.uint8)


def predict(model: Model, preset: Preset, image: np.ndarray, folder: Path) -> list[np.ndarray]:
    """Label maps by pacl's preset, one per row."""
    predictor = build(model, preset, folder)
    Image.fromarray(image).save(folder / "images" / "0.png")
    Image.new("L", image.shape[1::-1]).save(folder / "masks" / "0.png")
    example: Example = predictor.read(predictor.task.dataset.items[0])
    return predictor.predict([example])[0]


def build(model: Model, preset: Preset, folder: Path) -> Predictor:
    for name in ("images", "masks"):
        (folder / name).mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(folder / name / "0.png")
    pamr = None
    if preset.pamr_iterations is not None:
        pamr = Pamr(preset.pamr_iterations, preset.pamr_dilations, preset.pamr_background_level)
    task = Task(
        preset.benchmark,
        FolderDataset(folder, labels="a,b"),
        build_candidates(find_benchmark(preset.benchmark), preset),
        preset.segment_config(batch_size=3),
        preset.templates,
        preset=preset,
        pamr=pamr,
    )
    return build_predictor(model, task)


Walk = Callable[[list[Any], Tensor, tuple[int, int], Tensor], tuple[Tensor, tuple[int, int]]]
"""Blocks, the first one's input, its grid and the crop → patch tokens, and their grid."""


def encoder(
    model: Model,
    preset: Preset,
    *,
    is_stretched: bool,
    vision: Any = None,
    walk: Walk | None = None,
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A literal scorer of patches, and the class of each name."""
    labels = build_candidates(find_benchmark(preset.benchmark), preset).labels
    texts, class_of_name = model.pacl.encode_classes(labels, preset.templates)
    own = cast(HfClip, model.pacl.encoder).clip
    vision, projection = vision or own.vision_model, own.visual_projection

    def by_last_block(
        blocks: list[Any], tokens: Tensor, grid: tuple[int, int], crop: Tensor
    ) -> tuple[Tensor, tuple[int, int]]:
        for block in blocks[:-1]:
            tokens = apply_block(block, tokens)
        return TOKEN_KINDS[model.pacl.token_kind](blocks[-1], tokens, grid)[:, 1:], grid

    @torch.inference_mode()
    def encode(crop: Tensor) -> Tensor:
        tokens, *grid = author_paths.clip_tokens(vision, crop, is_stretched=is_stretched)
        blocks = list(vision.encoder.layers)
        tokens, grid = (walk or by_last_block)(blocks, tokens, (grid[0], grid[1]), crop)
        features = F.normalize(projection(vision.post_layernorm(tokens)), dim=-1)
        return (features @ texts.T).transpose(1, 2).unflatten(2, grid)

    return encode, class_of_name


def assert_same(found: np.ndarray, expected: np.ndarray, margin: np.ndarray) -> None:
    """The same labels, but for pixels whose two best classes are rounding apart."""
    differs = found != expected
    assert differs.mean() < 2e-3
    assert not differs[margin > 2e-4].any()


@pytest.mark.parametrize("benchmark", ["cityscapes", "voc21"])
def test_sclip(clip: Model, image: np.ndarray, tmp_path: Path, benchmark: str) -> None:
    """Windows; and with words for the background, a threshold and no small classes."""
    model = as_baseline(clip, "sclip", engine="torch")
    preset = replace(build_preset("sclip", benchmark), templates=SIMPLE)
    encode, of_name = encoder(model, preset, is_stretched=True)
    short_px = 560 if benchmark == "cityscapes" else 336
    scores = author_paths.clip_path(image, encode, len(of_name), short_px=short_px, crop=224)
    if benchmark == "voc21":
        rules = {"scale": 65.0, "level": 0.1, "area": 0.1}
    else:
        rules = {"scale": 40.0}
    expected, margin = author_paths.label_by_softmax(scores, of_name, **rules)
    [found] = predict(model, preset, image, tmp_path)
    assert_same(found, expected, margin)
    assert len(np.unique(expected)) > 1


@pytest.mark.slow  # PAMR of every name at full size, literally
@pytest.mark.parametrize("benchmark", ["voc21", "cityscapes"])
def test_naclip(clip: Model, image: np.ndarray, tmp_path: Path, benchmark: str) -> None:
    """Whole images at a grid that CLIP was not trained on, and windows; with PAMR and without."""
    model = as_baseline(clip, "naclip", engine="torch")
    preset = replace(build_preset("naclip", benchmark), templates=SIMPLE)
    encode, of_name = encoder(model, preset, is_stretched=True)
    rows = predict(model, preset, image, tmp_path)
    crop, short_px = (None, 336) if benchmark == "voc21" else (224, 560)
    for with_pamr, found in zip((False, True), rows, strict=True):
        scores = author_paths.clip_path(
            image, encode, len(of_name), short_px=short_px, crop=crop, with_pamr=with_pamr
        )
        level = 0.1 if benchmark == "voc21" else 0.0
        expected, margin = author_paths.label_by_softmax(scores, of_name, scale=40.0, level=level)
        assert_same(found, expected, margin)
    assert (rows[0] != rows[1]).any()


@pytest.mark.slow  # a patch at a time
@pytest.mark.parametrize(
    ("kind", "literally"), [("scclip", scclip_literally), ("rfclip", rfclip_literally)]
)
def test_whole_walks(
    clip: Model,
    image: np.ndarray,
    tmp_path: Path,
    kind: str,
    literally: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SC-CLIP and RF-CLIP in SCLIP's windows."""
    monkeypatch.setitem(walks.CHANNELS, clip.pacl.encoder.width, CHANNELS)
    monkeypatch.setattr(walks, "MASS", MASS)
    centred = centre(clip, image, kind)
    cast(HfClip, centred.pacl.encoder).token_kinds = (kind,)
    model = as_baseline(centred, kind, engine="torch")
    preset = replace(build_preset("sclip", "voc20"), templates=SIMPLE)

    def walk(
        blocks: list[Any], tokens: Tensor, grid: tuple[int, int], crop: Tensor
    ) -> tuple[Tensor, tuple[int, int]]:
        own = [copy.deepcopy(block).double() for block in blocks]
        return literally(own, tokens.double(), grid)[None].float(), grid

    encode, of_name = encoder(model, preset, is_stretched=True, walk=walk)
    scores = author_paths.clip_path(image, encode, len(of_name), short_px=336, crop=224)
    expected, margin = author_paths.label_by_softmax(scores, of_name, scale=40.0)
    [found] = predict(model, preset, image, tmp_path)
    assert_same(found, expected, margin)
    assert len(np.unique(expected)) > 1


@pytest.mark.parametrize(
    ("benchmark", "tower"),
    [
        ("voc21", "Dinov2WithRegistersModel"),
        pytest.param("cityscapes", "Dinov2Model", marks=pytest.mark.slow),
        pytest.param("coco-object", "Dinov2Model", marks=pytest.mark.slow),
    ],
)
def test_proxyclip(
    clip: Model, image: np.ndarray, tmp_path: Path, benchmark: str, tower: str
) -> None:
    """Windows of 336 on the grid of the second tower, whose library's own tokens are compared."""
    proxy = load_vision_tower(write_vit(tower, tmp_path / "proxy"))
    centred = centre(clip, image, "maskclip")
    model = as_baseline(centred, "proxyclip", engine="torch", proxy=proxy)
    preset = replace(build_preset("proxyclip", benchmark), templates=SIMPLE)
    library = cast(VitTower, proxy).model

    def walk(
        blocks: list[Any], tokens: Tensor, grid: tuple[int, int], crop: Tensor
    ) -> tuple[Tensor, tuple[int, int]]:
        mean, std = (
            torch.tensor(each)[:, None, None]
            for each in (author_paths.IMAGENET_MEAN, author_paths.IMAGENET_STD)
        )
        own_mean, own_std = (
            torch.tensor(each)[:, None, None]
            for each in (author_paths.CLIP_MEAN, author_paths.CLIP_STD)
        )
        shown = (crop * own_std + own_mean - mean) / std
        rows, columns = (side // 14 for side in crop.shape[2:])
        features = library(pixel_values=shown).last_hidden_state[0, -rows * columns :]
        for block in blocks[:-1]:
            tokens = apply_block(block, tokens)
        attention = blocks[-1].self_attn
        values = attention.v_proj(blocks[-1].layer_norm1(tokens))[:, 1:]
        values = values.transpose(1, 2).unflatten(2, grid)
        mixed = author_paths.proxyclip_tokens(values, features, (rows, columns))
        return attention.out_proj(mixed)[None], (rows, columns)

    encode, of_name = encoder(centred, preset, is_stretched=True, walk=walk)
    short_px, crop_px = (448, 224) if benchmark == "cityscapes" else (336, 336)
    scores = author_paths.clip_path(
        image, encode, len(of_name), short_px=short_px, crop=crop_px, stride=112
    )
    level = {"voc21": 0.2, "coco-object": 0.25}.get(benchmark, 0.0)
    expected, margin = author_paths.label_by_softmax(scores, of_name, scale=40.0, level=level)
    [found] = predict(model, preset, image, tmp_path)
    assert_same(found, expected, margin)
    assert len(np.unique(expected)) > 1


@pytest.mark.parametrize("benchmark", ["voc21", pytest.param("cityscapes", marks=pytest.mark.slow)])
def test_tcl(clip: Model, image: np.ndarray, tmp_path: Path, benchmark: str) -> None:
    """Masks of a sigmoid, the background a constant mask, PAMR in each window."""
    model = as_baseline(clip, "maskclip", engine="torch")
    preset = replace(build_preset("tcl", benchmark), templates=SIMPLE)
    encode, of_name = encoder(model, preset, is_stretched=False)
    rows = predict(model, preset, image, tmp_path)
    for with_pamr, level, found in zip((False, True), (0.5, 0.4), rows, strict=True):
        masks = author_paths.tcl_path(
            image, encode, len(of_name), patch=PATCH_PX, with_pamr=with_pamr
        )[0]
        if benchmark == "voc21":
            masks = torch.cat([torch.full_like(masks[:1], level), masks])
        best = masks.topk(2, dim=0)[0]
        assert_same(found, masks.argmax(dim=0).numpy(), (best[0] - best[1]).numpy())


@pytest.mark.parametrize(
    ("benchmark", "scale"), [("voc20", (2048, 512)), ("context59", (520, 520))]
)
def test_maskclip(
    clip: Model, image: np.ndarray, tmp_path: Path, benchmark: str, scale: tuple[int, int]
) -> None:
    """Whole images, zeros below and to the right, exact GELU in every block."""
    model = as_baseline(clip, "maskclip", engine="torch")
    preset = replace(build_preset("maskclip", benchmark), templates=SIMPLE)
    vision = copy.deepcopy(cast(HfClip, model.pacl.encoder).clip.vision_model)
    for module in vision.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    for block in vision.encoder.layers:
        block.mlp.activation_fn = nn.GELU()
    inner, of_name = encoder(model, preset, is_stretched=False, vision=vision)

    def encode(seen: Tensor) -> Tensor:
        below, right = (-side % PATCH_PX for side in seen.shape[2:])
        return inner(F.pad(seen, (0, right, 0, below)))

    scores = author_paths.maskclip_path(image, encode, scale=scale)[0]
    best = scores.topk(2, dim=0)[0]
    [found] = predict(model, preset, image, tmp_path)
    assert_same(found, of_name[scores.argmax(dim=0)].numpy(), (best[0] - best[1]).numpy())


def test_sizes_are_those_of_mmcv() -> None:
    path = build_preset("sclip", "voc20").path
    assert path.size_px(333, 500, short_side_px=336) == (336, 505)
    assert path.size_px(427, 640, short_side_px=336) == (336, 504)
    assert path.size_px(100, 1000, short_side_px=336) == (205, 2048)
    context = build_preset("maskclip", "context59").path
    assert context.size_px(333, 500, short_side_px=520) == (346, 520)


@pytest.mark.parametrize("size_px", [(7, 9), (3, 4), (20, 5), (6, 8)])
def test_resizing_is_opencvs(size_px: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    expected = author_paths.opencv_bilinear(image, *size_px)
    np.testing.assert_array_equal(resize_bilinear(image, size_px), expected)


def test_resizing_as_opencv_was_seen_to_do() -> None:
    """`cv2.resize` of opencv-python-headless 4.11.0.86 and 5.0.0, recorded."""
    image = np.arange(0, 252, 7, dtype=np.uint8).reshape(3, 4, 3)
    np.testing.assert_array_equal(resize_bilinear(image, (4, 7))[:, :, 1], RECORDED)


RECORDED = np.array(
    [
        [7, 14, 26, 38, 50, 62, 70],
        [59, 67, 79, 91, 103, 115, 123],
        [122, 130, 142, 154, 166, 178, 186],
        [175, 182, 194, 206, 218, 230, 238],
    ]
)


def test_another_tower_keeps_its_own_colours(
    clip: Model, image: np.ndarray, tmp_path: Path
) -> None:
    """RADIO normalises in its first layer: to be shown ImageNet's deviations would do it twice."""
    vision = load_vision_tower(write_vit("RadioModel", tmp_path / "radio"))
    text = clip.pacl.text
    embedder = VisionEmbedder(vision.width, text.text_width)
    pair = Pacl(vision=vision, text=text, embedder=embedder, token_kind="features")
    preset = replace(build_preset("tcl", "voc20"), templates=SIMPLE)
    predictor = build(Model(pair), preset, tmp_path)
    Image.fromarray(image).save(tmp_path / "images" / "0.png")
    pixels = predictor.read(predictor.task.dataset.items[0]).pixels
    assert 0 <= pixels.min() < 0.1 < 0.9 < pixels.max() <= 1
    assert preset.path.changes_clip
    assert not pair.runs_as_published
