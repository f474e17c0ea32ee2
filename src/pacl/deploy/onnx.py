"""Export a model to ONNX: pixels and text embeddings in, class scores out; texts in a second graph.

Nothing of a vocabulary is baked in: its embeddings are an input, and the second graph makes them
from any words. examples/segment_onnx.py uses both without torch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pacl.errors import EnvironmentProblem, InputError
from pacl.inference.windows import grid_px, patches_to_cells
from pacl.modeling.compatibility import patch_similarity
from pacl.modeling.engines import packages_of
from pacl.modeling.engines.onnx import write_graph
from pacl.modeling.pacl import Pacl
from pacl.runtime.files import replace_directory
from pacl.runtime.packages import require_packages
from pacl.text.templates import PAPER7

IMAGES, TEXTS, TOKENIZER, SETTINGS = "images.onnx", "texts.onnx", "tokenizer.json", "export.json"
FORMAT = "pacl-onnx"
TOLERANCE = 1e-4
"""Largest difference of a score, a cosine, between a graph and torch; beyond it is a defect.

Ten times what the tests allow here: runtimes of other machines sum in other orders.
"""

_log = logging.getLogger(__name__)


class ScoreImages(nn.Module):
    """The first graph: the cosine of every text with every cell of the patch grid.

    Args:
        model: In evaluation mode.
        patch_stride_px: Distance of neighbouring patches, and side of the cells.
    """

    def __init__(self, model: Pacl, *, patch_stride_px: int) -> None:
        super().__init__()
        self.model = model
        self.patch_stride_px = patch_stride_px

    def forward(
        self, images: Float[Tensor, "B 3 H W"], text_embeds: Float[Tensor, "C D"]
    ) -> Float[Tensor, "B C rows columns"]:
        """Score images whose sides are multiples of `grid_px`; cells tile them."""
        tokens, grid = self.model.encode_patches(images, stride_px=self.patch_stride_px)
        similarity = patch_similarity(self.model.embed_tokens(tokens), text_embeds)
        return patches_to_cells(
            torch.unflatten(similarity, 2, grid),
            patch_px=self.model.vision.patch_size_px,
            cell_px=self.patch_stride_px,
        )


class EmbedTexts(nn.Module):
    """The second graph: token ids to unit embeddings in the joint space.

    Args:
        model: In evaluation mode.
    """

    def __init__(self, model: Pacl) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Int[Tensor, "C L"], mask: Int[Tensor, "C L"]) -> Float[Tensor, "C D"]:
        """Embed what the tokenizer returned: ids, and 1 for real tokens, 0 for padding."""
        return self.model.embed_texts(self.model.text.encode_tokens(ids, mask.bool()))


@dataclass(frozen=True)
class Difference:
    """How far a graph is from torch on one input."""

    graph: str
    """The graph's file."""
    inputs: str
    """Shapes of the inputs."""
    largest: float
    """Largest absolute difference of an output."""


def export_onnx(
    model: Pacl,
    directory: Path,
    *,
    patch_stride_px: int | None = None,
    templates: Sequence[str] = PAPER7,
) -> list[Difference]:
    """Write both graphs, the tokenizer and the settings, and compare the graphs with torch.

    Args:
        model: Its weights are copied into the graphs, in float32.
        directory: Made where it does not exist; an earlier export is replaced.
        patch_stride_px: Distance between patches, fixed in the graph; None: the patch size.
        templates: Prompts that the settings name for whoever embeds class names.

    Returns:
        The differences, over several sizes and numbers of texts.

    Raises:
        InputError: The directory holds something else, the stride leaves gaps between patches, or
            the model is not on the CPU.
        EnvironmentProblem: Packages are missing, the disk is full, or a graph is wrong.
    """
    _check(model, directory)
    stride_px = patch_stride_px or model.vision.patch_size_px
    model.vision.check_stride(stride_px)
    images = ScoreImages(model, patch_stride_px=stride_px)
    found: list[Difference] = []

    def write(draft: Path) -> None:
        _write_graphs(images, EmbedTexts(model), draft)
        (draft / TOKENIZER).write_text(model.text.tokenizer_json(), encoding="utf-8")
        found.extend(compare(images, draft))
        settings = describe(images, templates) | {"differences": [asdict(each) for each in found]}
        content = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
        (draft / SETTINGS).write_text(content, encoding="utf-8")

    replace_directory(directory, write)
    return found


def _check(model: Pacl, directory: Path) -> None:
    require_packages(packages_of("onnx"), purpose="the export")
    if directory.exists() and not (directory / SETTINGS).is_file() and any(directory.iterdir()):
        raise InputError(
            f"{directory} holds something else than an export",
            why="an export replaces the whole directory",
            fix="choose another --output",
        )
    if model.device.type != "cpu":
        raise InputError("a model is exported from the CPU", fix="--device cpu")


def describe(graph: ScoreImages, templates: Sequence[str]) -> dict[str, Any]:
    """Return all that a user of the graphs must know, as export.json holds it."""
    model = graph.model
    black, white = (
        model.vision.normalise(torch.full((3, 1, 1), value, dtype=torch.uint8)).flatten().double()
        for value in (0, 255)
    )
    return {
        "format": FORMAT,
        "version": 1,
        "model": model.describe(),
        "fingerprint": model.fingerprint,
        "image_size_px": model.vision.image_size_px,
        "patch_stride_px": graph.patch_stride_px,
        "side_multiple_px": grid_px(model.vision.patch_size_px, graph.patch_stride_px),
        "resample": model.vision.preprocessing.resample.name.lower(),
        "scale": ((white - black) / 255).tolist(),  # of pixels in 0 .. 255, per channel
        "shift": black.tolist(),
        "logit_scale": model.logit_scale,
        "templates": list(templates),
        "context_length": model.text.context_length,
    }


def _write_graphs(images: ScoreImages, texts: EmbedTexts, directory: Path) -> None:
    side_px = 3 * grid_px(images.model.vision.patch_size_px, images.patch_stride_px)
    any_size = torch.export.Dim.DYNAMIC
    _log.info("exporting the graph of images")
    write_graph(
        images,
        {
            "images": torch.zeros(2, 3, side_px, 2 * side_px),
            "text_embeds": torch.ones(3, joint_width(images.model)),
        },
        directory / IMAGES,
        output="scores",
        dynamic_shapes=({0: any_size, 2: any_size, 3: any_size}, {0: any_size}),
    )
    _log.info("exporting the graph of texts")
    ids = torch.ones(3, 5, dtype=torch.long)
    write_graph(
        texts,
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        directory / TEXTS,
        output="text_embeds",
        dynamic_shapes=({0: any_size, 1: any_size}, {0: any_size, 1: any_size}),
    )


@torch.no_grad()
def joint_width(model: Pacl) -> int:
    """Return D, the width of the joint space."""
    return model.embed_texts(model.text.encode_texts(["a"])).shape[1]


def compare(images: ScoreImages, directory: Path) -> list[Difference]:
    """Run both graphs of an export and torch on the same inputs.

    Args:
        images: What the first graph was made of.
        directory: The export.

    Raises:
        EnvironmentProblem: A graph differs by more than `TOLERANCE`: the exporter or the runtime
            of this machine computes something else.
    """
    found = [*_compare_texts(EmbedTexts(images.model), directory)]
    found += _compare_images(images, directory)
    wrong = [each for each in found if not each.largest <= TOLERANCE]
    if wrong:
        raise EnvironmentProblem(
            "the exported graph does not compute what torch computes",
            why="\n".join(f"{each.graph} {each.inputs}: {each.largest:.1e}" for each in wrong),
            fix="another version of onnxruntime or torch; pacl doctor names those installed",
        )
    return found


def _compare_images(images: ScoreImages, directory: Path) -> Iterator[Difference]:
    session = open_session(directory / IMAGES)
    draw = torch.Generator().manual_seed(0)
    step_px = grid_px(images.model.vision.patch_size_px, images.patch_stride_px)
    native = max(1, images.model.vision.image_size_px // step_px)
    width = joint_width(images.model)
    for n_images, rows, columns, n_texts in (
        (1, native, native, 1),
        (2, native, native + 2, 7),
        (1, native + 3, 2, 20),
        (3, 1, 4, 150),
    ):
        pixels = torch.randn(n_images, 3, rows * step_px, columns * step_px, generator=draw)
        embeds = torch.randn(n_texts, width, generator=draw)
        expected = images(pixels, embeds).detach().numpy()
        [scores] = session.run(None, {"images": pixels.numpy(), "text_embeds": embeds.numpy()})
        shapes = f"{n_images} × {pixels.shape[2]} × {pixels.shape[3]} px, {n_texts} texts"
        yield Difference(IMAGES, shapes, _largest(scores, expected))


def _compare_texts(texts: EmbedTexts, directory: Path) -> Iterator[Difference]:
    from tokenizers import Tokenizer

    session = open_session(directory / TEXTS)
    tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
    for words in (["sky"], ["a photo of a sky", "sky"], ["a red boat", "the sea", "sea " * 100]):
        encoded = tokenizer.encode_batch(words)
        ids = np.array([each.ids for each in encoded])
        mask = np.array([each.attention_mask for each in encoded])
        expected = texts.model.embed_texts(texts.model.text.encode_texts(words)).detach().numpy()
        [embeds] = session.run(None, {"input_ids": ids, "attention_mask": mask})
        yield Difference(TEXTS, f"{len(ids)} × {ids.shape[1]} tokens", _largest(embeds, expected))


def open_session(path: Path) -> Any:
    """Open a graph in ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _largest(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
