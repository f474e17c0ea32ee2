"""The exported graphs compute what torch computes, and are used without it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from checkpoints import write_clip
from foreign_towers import write_resnet, write_words
from pacl.api import Model, load
from pacl.datasets.storybook import draw_scene
from pacl.deploy import onnx
from pacl.deploy.onnx import ScoreImages, compare, export_onnx, joint_width, open_session
from pacl.errors import EnvironmentProblem, InputError
from pacl.inference.config import SegmentConfig
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.engines.onnx import write_graph
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers.load import load_text_tower, load_vision_tower

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

SIZES = ((4, 4), (16, 16), (3, 11), (14, 5))
"""Rows and columns of the patch grid; the second and, for ViT-B/16, none are native."""


def differences(graph: Path, model: Pacl, *, stride_px: int) -> list[float]:
    """Largest difference at four sizes and three numbers of texts, batches of one and of two."""
    session, torch_module = open_session(graph), ScoreImages(model, patch_stride_px=stride_px)
    draw, found = torch.Generator().manual_seed(1), []
    for rows, columns in SIZES:
        for n_texts in (1, 4, 60):
            side = model.vision.patch_size_px
            images = torch.randn(1 + n_texts % 2, 3, rows * side, columns * side, generator=draw)
            texts = torch.randn(n_texts, joint_width(model), generator=draw)
            expected = torch_module(images, texts).detach().numpy()
            feed = {"images": images.numpy(), "text_embeds": texts.numpy()}
            [scores] = session.run(None, feed)
            assert scores.shape == expected.shape
            found.append(float(np.abs(scores - expected).max()))
    return found


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """The exporter's symbolic sizes would become numbers in the checks of shapes."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def storybook(storybook_model: Path) -> Model:
    return load(storybook_model, device="cpu")


@pytest.fixture(scope="module")
def export(storybook: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("export") / "storybook"
    with unchecked():
        export_onnx(storybook.pacl, directory, patch_stride_px=4)
    return directory


@pytest.mark.slow
def test_embedded_model_equals_torch(storybook: Model, export: Path) -> None:
    assert max(differences(export / onnx.IMAGES, storybook.pacl, stride_px=4)) < 1e-5


@pytest.mark.slow
def test_scores_are_those_that_pacl_labels_with(storybook: Model, export: Path) -> None:
    image = Image.fromarray(draw_scene("test", 3).image)
    embeds = storybook.vocabulary(["sky", "grass", "house"]).text_embeds
    found = storybook.segment(
        image, ["sky", "grass", "house"], config=SegmentConfig(patch_stride_px=4)
    )
    pixels = storybook.pacl.vision.prepare(image, size_px=(128, 128))[None]
    [scores] = open_session(export / onnx.IMAGES).run(
        None, {"images": pixels.numpy(), "text_embeds": embeds.numpy()}
    )
    np.testing.assert_allclose(scores[0], found.class_scores, atol=1e-5)


@pytest.mark.slow
def test_random_vit_b16_equals_torch(tmp_path: Path) -> None:
    encoder = load(write_clip(tmp_path / "clip", size="vit-b-16"), device="cpu").pacl.encoder
    torch.manual_seed(0)
    embedder = VisionEmbedder(encoder.width, encoder.joint_width)
    model = Pacl(encoder=encoder, embedder=embedder).eval()
    with unchecked():
        export_onnx(model, tmp_path / "export")
    assert max(differences(tmp_path / "export" / onnx.IMAGES, model, stride_px=16)) < 1e-5


@pytest.mark.slow
def test_a_pair_of_foreign_towers_is_exported(tmp_path: Path) -> None:
    vision = load_vision_tower(write_resnet(tmp_path / "vision"))
    text = load_text_tower(write_words(tmp_path / "text"))
    torch.manual_seed(0)
    embedder = VisionEmbedder(vision.width, text.text_width)
    model = Pacl(vision=vision, text=text, embedder=embedder, token_kind=vision.token_kinds[0])
    with unchecked():
        found = export_onnx(model.eval(), tmp_path / "export")
    assert {each.graph for each in found} == {onnx.IMAGES, onnx.TEXTS}
    assert max(each.largest for each in found) < 1e-5


@pytest.mark.slow
def test_tokens_that_depend_on_the_grid_are_exported(tmp_path: Path, clip: Path) -> None:
    """NACLIP's neighbourhood is made in the graph, for whatever grid an image has."""
    model = Pacl(encoder=load(clip, device="cpu").pacl.encoder, embedder=None, token_kind="naclip")
    with unchecked():
        found = export_onnx(model.eval(), tmp_path / "export", patch_stride_px=3)
    assert max(each.largest for each in found) < 1e-5


class WrongScores(ScoreImages):
    """Scores that belong to the cell beside."""

    def forward(self, images: Tensor, text_embeds: Tensor) -> Tensor:
        return super().forward(images, text_embeds).roll(1, dims=3)


@pytest.mark.slow
def test_a_wrong_graph_is_refused(storybook: Model, export: Path, tmp_path: Path) -> None:
    any_size = torch.export.Dim.DYNAMIC
    wrong = WrongScores(storybook.pacl, patch_stride_px=4)
    for name in (onnx.TEXTS, onnx.TOKENIZER):
        (tmp_path / name).write_bytes((export / name).read_bytes())
    with unchecked():
        write_graph(
            wrong,
            {"images": torch.zeros(2, 3, 24, 48), "text_embeds": torch.ones(3, 192)},
            tmp_path / onnx.IMAGES,
            output="scores",
            dynamic_shapes=({0: any_size, 2: any_size, 3: any_size}, {0: any_size}),
        )
    assert max(differences(tmp_path / onnx.IMAGES, storybook.pacl, stride_px=4)) > 1e-3
    with pytest.raises(EnvironmentProblem, match="does not compute what torch computes"):
        compare(ScoreImages(storybook.pacl, patch_stride_px=4), tmp_path)


WITHOUT_TORCH = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "pacl", "safetensors"}:
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Refuse())
sys.argv[0:1] = []
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_example_needs_no_torch(
    storybook: Model, export: Path, tmp_path: Path, repository: Path
) -> None:
    example = repository / "examples" / "segment_onnx.py"
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 60
    image = Image.fromarray(draw_scene("test", 3).image).resize((190, 128))
    image.save(tmp_path / "scene.png")
    words = "sky,grass,house,pine tree"
    child = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, example, export, tmp_path / "scene.png", words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert "pine tree:" in child.stdout
    labels = np.asarray(Image.open(tmp_path / "scene_labels.png"))
    ours = storybook.segment(image, words, config=SegmentConfig(patch_stride_px=4))
    assert (labels == ours.label_map).mean() > 0.999


def test_tokenizer_file_gives_the_towers_tokens(model: Model, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    texts = ["a red boat", "the Sea, at dusk", "house " * 100]
    ids, mask, _ = model.pacl.text.tokenize(texts)
    encoded = Tokenizer.from_str(model.pacl.text.tokenizer_json()).encode_batch(texts)
    assert [each.ids for each in encoded] == ids.tolist()
    assert [each.attention_mask for each in encoded] == mask.int().tolist()


def test_a_folder_of_something_else_is_kept(model: Model, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(InputError, match="something else"):
        export_onnx(model.pacl, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_stride_that_leaves_gaps_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leaves gaps"):
        export_onnx(model.pacl, tmp_path / "out", patch_stride_px=9)
