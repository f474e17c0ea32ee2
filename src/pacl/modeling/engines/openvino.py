"""OpenVINO, running the tower's graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pacl.modeling.engines.onnx import export_tower
from pacl.modeling.engines.pytorch import PatchTower
from pacl.modeling.towers.token_kinds import Grid


def runner(
    fingerprint: str, cache_dir: Path | None, *, precision: Literal["f32", "bf16"]
) -> Callable[[PatchTower], Callable[[Tensor, Grid], Tensor]]:
    """What builds OpenVINO's run of a tower, for `DenseEngine`.

    Args:
        fingerprint: Of the encoder's weights.
        cache_dir: See `export_tower`.
        precision: Of the products.
    """

    def build(tower: PatchTower) -> Callable[[Tensor, Grid], Tensor]:
        import openvino

        path = export_tower(tower, fingerprint=fingerprint, cache_dir=cache_dir)
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = openvino.Core().compile_model(path, "CPU", options).create_infer_request()

        def run(tokens: Tensor, grid: Grid) -> Tensor:
            found = request.infer([tokens.numpy()], share_inputs=True)
            return torch.from_numpy(found[0].copy())

        return run

    return build
