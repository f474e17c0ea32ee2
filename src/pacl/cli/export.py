"""pacl export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from pacl.cli.console import DONE, result, say, table
from pacl.cli.options import ModelOptions


@dataclass(frozen=True)
class Export:
    """Write a model as ONNX graphs that run without torch and take any words."""

    model: tyro.conf.Positional[str]
    """storybook, a training run's output directory, or a CLIP's hub id or directory."""

    output: Path
    """Directory for images.onnx, texts.onnx, tokenizer.json and export.json."""

    patch_stride_px: int | None = None
    """Distance between patches, fixed in the graph. Smaller gives finer masks, slowly. none: the
    patch size."""

    embedder: str | None = None
    """Directory of a trained embedder to put on that CLIP."""


def run_export(options: Export) -> int:
    """Export, and print how far the graphs are from torch."""
    from pacl.deploy.onnx import export_onnx

    loading = ModelOptions(model=options.model, embedder=options.embedder, device="cpu")
    model = loading.load()
    found = export_onnx(
        model.pacl,
        options.output,
        patch_stride_px=options.patch_stride_px,
        templates=model.templates,
    )
    rows = [[each.graph, each.inputs, f"{each.largest:.1e}"] for each in found]
    result(table(["graph", "inputs", "largest difference from torch"], rows))
    say(f"exported to {options.output}")
    say(
        f'next: python examples/segment_onnx.py {options.output} IMAGE "sky,road"   '
        "(onnxruntime, tokenizers, numpy and pillow; no torch)"
    )
    return DONE
