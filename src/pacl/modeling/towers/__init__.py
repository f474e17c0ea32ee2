"""Any frozen vision tower, any frozen text tower: what they state, and how they are loaded."""

from pacl.modeling.towers.load import load_text_tower, load_vision_tower
from pacl.modeling.towers.protocols import (
    FrozenClip,
    MergesPatches,
    TextTower,
    Tower,
    VisionTower,
)

__all__ = [
    "FrozenClip",
    "MergesPatches",
    "TextTower",
    "Tower",
    "VisionTower",
    "load_text_tower",
    "load_vision_tower",
]
