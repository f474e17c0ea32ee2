"""The tower as a graph in ONNX's format, kept in a cache, and ONNX Runtime to run it."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pacl.errors import InputError
from pacl.modeling.engines.cache import graph_dir
from pacl.modeling.towers.token_kinds import Grid
from pacl.modeling.towers.walk import PatchTower
from pacl.modeling.towers.whole_walks import NEED_GRID
from pacl.runtime.files import replacing

GRAPH_VERSION = 1
"""Raise it with every change of what is exported: cached graphs of other versions are not read."""
MAX_FILE_BYTES = 1_900_000_000
"""Most weights in a graph's own file; protobuf ends at 2 GiB."""

_log = logging.getLogger(__name__)


class OnnxRun:
    """Runs a tower in ONNX Runtime, on the CPU.

    Args:
        tower: Float32 weights on the CPU.
        fingerprint: Identifies the encoder's weights.
        cache_dir: See `export_tower`.
    """

    def __init__(self, tower: PatchTower, *, fingerprint: str, cache_dir: Path | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        path = export_tower(tower, fingerprint=fingerprint, cache_dir=cache_dir)
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Return the patch tokens."""
        return torch.from_numpy(self._session.run(None, {"tokens": tokens.numpy()})[0])


def export_tower(tower: PatchTower, *, fingerprint: str, cache_dir: Path | None = None) -> Path:
    """Write a tower's graph, or find it written: any number of images and tokens.

    Args:
        tower: Float32 weights on the CPU.
        fingerprint: Identifies the encoder's weights.
        cache_dir: Where graphs are kept, each about as large as the tower's weights; None:
            pacl/engines in $XDG_CACHE_HOME or ~/.cache.

    Returns:
        The graph's file.

    Raises:
        InputError: The kind of tokens depends on the grid (naclip), which a graph does not get; or
            the tower merges patches.
        EnvironmentProblem: The disk is full or cannot be written.
    """
    if tower.merges or tower.kind in NEED_GRID:
        what = "merge patches" if tower.merges else f"know {tower.kind} tokens"
        raise InputError(f"only torch's engines {what}", fix="--engine torch, or torch-bf16")
    name = f"{fingerprint}-{tower.kind}{tower.layer}-v{GRAPH_VERSION}.onnx"
    path = graph_dir(cache_dir) / name
    if not path.exists():
        _log.info("exporting the encoder's graph to %s, once", path)
        with replacing(path) as draft:
            _export(tower, draft)
    return path


class _WithoutGrid(nn.Module):
    """A tower whose kind of tokens does not depend on the grid."""

    def __init__(self, tower: PatchTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tower(tokens, (0, 0))  # no kind that is exported looks at it


def _export(tower: PatchTower, path: Path) -> None:
    sizes = {0: torch.export.Dim("images"), 1: torch.export.Dim("tokens")}
    write_graph(
        _WithoutGrid(tower),
        {"tokens": torch.zeros(2, 5, tower.width)},
        path,
        output="patch_tokens",
        dynamic_shapes=(sizes,),
    )


def write_graph(
    module: nn.Module,
    inputs: dict[str, Tensor],
    path: Path,
    *,
    output: str,
    dynamic_shapes: tuple[dict[int, Any], ...],
) -> None:
    """Write a module as a graph in ONNX's format.

    Args:
        module: Takes the inputs in their order and returns one tensor; exported in evaluation mode.
        inputs: An example of each input, by its name in the graph.
        path: The graph's file. Weights of 2 GB and more, which its format cannot hold, go to a
            file beside it.
        output: Name of what the module returns.
        dynamic_shapes: Per input, the dimensions that may have any size.
    """
    n_bytes = sum(value.nbytes for value in module.state_dict().values())
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)  # it warns that torchvision is missing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations within the exporter
            torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                path,
                dynamo=True,
                opset_version=18,
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=dynamic_shapes,
                external_data=n_bytes >= MAX_FILE_BYTES,
                verbose=False,
            )
    finally:
        exporter_log.setLevel(level)
