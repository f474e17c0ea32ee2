"""Open-vocabulary semantic segmentation from image-caption pairs (PACL, CVPR 2023).

``import pacl`` is cheap and does nothing: each public name is imported from its own file at its
first use, so no torch, no transformers and no network are touched before they are needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pacl.api import Model, load
    from pacl.compatibility import contrastive_loss, patch_compatibility, patch_similarity
    from pacl.embedder import VisionEmbedder
    from pacl.encoders.hf import HfClip
    from pacl.errors import EnvironmentProblem, InputError, PaclError
    from pacl.model import Pacl
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
    "HfClip": "pacl.encoders.hf",
    "InputError": "pacl.errors",
    "Model": "pacl.api",
    "Pacl": "pacl.model",
    "PaclError": "pacl.errors",
    "Segmentation": "pacl.results",
    "VisionEmbedder": "pacl.embedder",
    "contrastive_loss": "pacl.compatibility",
    "load": "pacl.api",
    "patch_compatibility": "pacl.compatibility",
    "patch_similarity": "pacl.compatibility",
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
