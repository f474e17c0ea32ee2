"""The words to look for, as the model's text tower sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pacl.modeling.pacl import Pacl
from pacl.text.labels import Labels


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Classes and the unit text embeddings of all their names."""

    labels: tuple[str, ...]
    """One name per class, in the user's order."""
    text_embeds: Float[Tensor, "N D"]
    """Unit norm; one row per name, several names may stand for one class."""
    class_of_name: Int[Tensor, " N"]
    """Index of each name's class, from 0."""


def encode_vocabulary(model: Pacl, labels: Labels, templates: Sequence[str]) -> Vocabulary:
    """Encode every name of labels, averaged over templates (paper, inference).

    Args:
        model: its text tower is used.
        labels: classes with all their names.
        templates: each holds one {} for the name.
    """
    with torch.no_grad():
        text_embeds, class_of_name = model.encoder.encode_classes(labels, templates)
    return Vocabulary(labels.names, text_embeds, class_of_name)
