"""Open-vocabulary semantic segmentation from image-caption pairs (PACL, CVPR 2023).

``import pacl`` is cheap and does nothing: each public name is imported from its own file at its
first use, so no torch, no transformers and no network are touched before they are needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pacl.api import Model, load
    from pacl.errors import EnvironmentProblem, InputError, PaclError
    from pacl.modeling.compatibility import patch_compatibility, patch_similarity
    from pacl.modeling.embedder import VisionEmbedder
    from pacl.modeling.loss import contrastive_loss
    from pacl.modeling.pacl import Pacl
    from pacl.modeling.towers.hf import HfClip
    from pacl.results import Segmentation

__version__ = "0.1.0"

__all__ = [
    "EnvironmentProblem",
    "HfClip",
    "InputError",
    "Model",
    "Pacl",
    "PaclError",
    "Segmentation",
    "VisionEmbedder",
    "__version__",
    "contrastive_loss",
    "load",
    "patch_compatibility",
    "patch_similarity",
]

_HOME = {
    "EnvironmentProblem": "pacl.errors",
    "HfClip": "pacl.modeling.towers.hf",
    "InputError": "pacl.errors",
    "Model": "pacl.api",
    "Pacl": "pacl.modeling.pacl",
    "PaclError": "pacl.errors",
    "Segmentation": "pacl.results",
    "VisionEmbedder": "pacl.modeling.embedder",
    "contrastive_loss": "pacl.modeling.loss",
    "load": "pacl.api",
    "patch_compatibility": "pacl.modeling.compatibility",
    "patch_similarity": "pacl.modeling.compatibility",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home at first use (PEP 562) and remember it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
