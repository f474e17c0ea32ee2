"""OpenVINO, running the tower's graph."""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pacl.modeling.engines.onnx import export_tower
from pacl.modeling.towers.token_kinds import Grid
from pacl.modeling.towers.walk import PatchTower


class OpenVinoRun:
    """Runs a tower in OpenVINO, on the CPU.

    Args:
        tower: Float32 weights on the CPU.
        fingerprint: Identifies the encoder's weights.
        cache_dir: See `export_tower`.
        precision: Type of the factors of a product.
    """

    def __init__(
        self,
        tower: PatchTower,
        *,
        fingerprint: str,
        cache_dir: Path | None,
        precision: Literal["f32", "bf16"],
    ) -> None:
        import openvino

        path = export_tower(tower, fingerprint=fingerprint, cache_dir=cache_dir)
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        model = openvino.Core().compile_model(path, "CPU", options)
        self._request = model.create_infer_request()

    def __call__(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Return the patch tokens."""
        found = self._request.infer([tokens.numpy()], share_inputs=True)
        return torch.from_numpy(found[0].copy())
