"""Engines: what runs the frozen encoder's blocks when images are segmented.

Each takes the place of `HfClip.encode_patches` and of nothing else: patches are cut, embedded
and given their positions by torch, so that every engine knows every size and stride, and text
embeddings, embedder and labelling are the same. Towers that merge patches are left to torch, at the
engine's precision. "torch", the default, is the encoder itself, and nothing of this folder is
imported for it. How far an engine's labels agree with float32's is
measured by benchmarks/inference.py; see docs/performance.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from pacl.errors import EnvironmentProblem, InputError
from pacl.modeling.engines import choice
from pacl.modeling.engines.cache import graph_dir
from pacl.modeling.towers import VisionTower
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.token_kinds import Grid
from pacl.modeling.towers.walk import PatchTower, cpu_flags

ENGINES = {
    "torch": "PyTorch, float32",
    "torch-bf16": "PyTorch, products in bfloat16",
    "torch-compiled": "PyTorch, float32, compiled at the first use",
    "torch-bf16-compiled": "PyTorch, products in bfloat16, compiled at the first use",
    "onnx": "ONNX Runtime, float32",
    "openvino": "OpenVINO, float32",
    "openvino-bf16": "OpenVINO, bfloat16",
}
"""The engines by the name that ``--engine`` takes; "auto" picks one of them."""

_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}

Run = Callable[[Tensor, Grid], Tensor]
"""The first block's input (B, N, E), CLS first, and the patch grid → patch tokens (B, T, E)."""

_log = logging.getLogger(__name__)


class DenseEngine:
    """Encodes patches as `HfClip.encode_patches` does, its blocks run by one of ENGINES.

    Args:
        encoder: Holds the weights, which are never changed.
        name: A key of ENGINES.
        build: Builds what runs a tower; called once for each kind, layer, and way of merging.
    """

    def __init__(self, encoder: HfClip, name: str, build: Callable[[PatchTower], Run]) -> None:
        self.name = name
        self._encoder = encoder
        self._build = build
        self._runs: dict[tuple[str, int, bool], Run] = {}

    @torch.inference_mode()
    def encode_patches(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        kind: str,
        layer: int,
        stride_px: int | None,
        merges: bool = False,
    ) -> tuple[Float[Tensor, "B T E"], Grid]:
        """Encode images to normed patch tokens, float32, and their grid.

        Args:
            images: As for `HfClip.encode_patches`, and so the rest.
            kind: How the last block that runs mixes patches.
            layer: Whose output.
            stride_px: Distance of neighbouring patches; None: the patch size.
            merges: Whether alike patches are merged on the way.

        Raises:
            ValueError: As `HfClip.encode_patches`.
            InputError: This engine does not know that kind, or patches cannot be merged for it.
        """
        key = kind, layer, merges
        if key not in self._runs:
            tower = self._encoder.patch_tower(kind=kind, layer=layer, merges=merges)
            self._runs[key] = self._build(tower)
        tokens, grid = self._encoder.embed_images(images, stride_px=stride_px)
        return self._runs[key](tokens, grid).float(), grid


def build_engine(
    name: str,
    encoder: VisionTower,
    *,
    kind: str = "clip",
    layer: int = -1,
    cache_dir: Path | None = None,
) -> DenseEngine:
    """Build an engine for a frozen encoder, and say in the log which it is.

    Args:
        name: A key of ENGINES, or "auto" for the fastest here.
        encoder: With its weights in place; they must not change afterwards.
        kind: Tokens that "auto" measures with.
        layer: Likewise.
        cache_dir: For exported graphs and for what "auto" measured; None: pacl/engines in the
            user's cache.

    Raises:
        InputError: There is no such engine, or it does not run this encoder, or not on its device.
        EnvironmentProblem: Its packages are not installed.
    """
    if not isinstance(encoder, HfClip):
        raise InputError(
            f"engine {name} runs the vision tower of a CLIP only, not {encoder.source}",
            fix="--engine torch",
        )
    if name == "auto":
        name = pick_engine(encoder, kind=kind, layer=layer, cache_dir=cache_dir)
        _log.info("engine: %s (%s), auto's pick", name, ENGINES[name])
    elif name in ENGINES:
        _log.debug("engine: %s (%s)", name, ENGINES[name])
    else:
        raise InputError(f"no engine {name!r}", fix=f"use auto, {', '.join(ENGINES)}")
    return DenseEngine(encoder, name, _choose_run(name, encoder, cache_dir))


def _choose_run(name: str, encoder: HfClip, cache_dir: Path | None) -> Callable[[PatchTower], Run]:
    from pacl.modeling.engines.pytorch import Bfloat16Run, Float32Run

    run = Bfloat16Run if "bf16" in name else Float32Run
    by_torch = partial(run, is_compiled=name.endswith("compiled"))
    if name.startswith("torch"):
        return by_torch
    _require(name, encoder.device)
    weights = {"fingerprint": encoder.fingerprint, "cache_dir": cache_dir}
    if name == "onnx":
        from pacl.modeling.engines.onnx import OnnxRun

        by_graph = partial(OnnxRun, **weights)
    else:
        from pacl.modeling.engines.openvino import OpenVinoRun

        precision = "bf16" if name == "openvino-bf16" else "f32"
        by_graph = partial(OpenVinoRun, **weights, precision=precision)
    return lambda tower: (by_torch if tower.merges else by_graph)(tower)


def pick_engine(
    encoder: HfClip, *, kind: str = "clip", layer: int = -1, cache_dir: Path | None = None
) -> str:
    """Return the engine that encodes images the fastest here, of those installed.

    It is measured at the first use on a machine, with a tower and with these versions of the
    packages, in some seconds and the time that graphs take to be exported, and kept. Engines that
    are compiled are left out. One in bfloat16 may win where the machine multiplies that in
    hardware: labels then differ at a few pixels. For float32's labels, name an engine.

    Args:
        encoder: Whose vision tower is measured.
        kind: Of the patch tokens.
        layer: Of the patch tokens.
        cache_dir: As for `build_engine`.
    """
    names = candidates(encoder.device)
    if len(names) == 1:
        return names[0]
    directory = graph_dir(cache_dir)
    tower = f"{encoder.fingerprint} {kind} {layer}"
    key = choice.machine_key(tower, device=encoder.device, flags=frozenset(cpu_flags()))
    known = choice.recall(directory, key, names)
    if known is not None:
        return known
    _log.info("measuring once which engine is the fastest here: %s", ", ".join(names))
    size_px = encoder.image_size_px
    images = torch.zeros(2, 3, size_px, size_px, device=encoder.device)
    engines = {n: DenseEngine(encoder, n, _choose_run(n, encoder, cache_dir)) for n in names}
    runs = {
        name: partial(engine.encode_patches, images, kind=kind, layer=layer, stride_px=None)
        for name, engine in engines.items()
    }
    wait = torch.cuda.synchronize if encoder.device.type == "cuda" else lambda: None
    name = choice.fastest(runs, wait=wait) or "torch"
    choice.remember(directory, key, name)
    return name


def candidates(device: torch.device) -> list[str]:
    """Return the engines that "auto" chooses from on a device."""
    has_bf16 = False
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported()
    elif device.type == "cpu":
        has_bf16 = bool(cpu_flags() & _BF16_FLAGS)
    return [
        name
        for name in ENGINES
        if not name.endswith("compiled")
        and (has_bf16 or "bf16" not in name)
        and (device.type == "cpu" or not packages_of(name))
        and not _missing(name)
    ]


def _require(name: str, device: torch.device) -> None:
    if device.type != "cpu":
        raise InputError(
            f"engine {name} runs on a CPU only, the model is on {device}",
            fix="--device cpu, or --engine torch",
        )
    missing = _missing(name)
    if missing:
        raise EnvironmentProblem(
            f"engine {name} needs {', '.join(missing)}", fix=f"pip install {' '.join(missing)}"
        )


def packages_of(name: str) -> tuple[str, ...]:
    """What must be installed for an engine; OpenVINO reads graphs in ONNX's format."""
    if name.startswith("torch"):
        return ()
    return "onnx", "onnxscript", "onnxruntime" if name == "onnx" else "openvino"


def _missing(name: str) -> list[str]:
    return [package for package in packages_of(name) if find_spec(package) is None]
