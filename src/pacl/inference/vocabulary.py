"""The words to look for, as the model's text tower sees them."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Classes and the unit text embeddings of all their names."""

    labels: tuple[str, ...]
    """One name per class, in the user's order."""
    text_embeds: Float[Tensor, "N D"]
    """Unit norm; one row per name, several names may stand for one class."""
    class_of_name: Int[Tensor, " N"]
    """Index of each name's class, from 0."""
