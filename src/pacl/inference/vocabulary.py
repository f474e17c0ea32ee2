"""The words to look for: as the user names them, and as the model's text tower sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor

from pacl.datasets.segmentation import NAMES, find_benchmark
from pacl.text.labels import Labels, parse_labels

LabelsLike = str | Path | Labels | Sequence[str] | Mapping[str, str | Sequence[str]]
"""Labels as `read_labels` takes them: "sky,road", a file, "voc20", a list, {"class": [names]}."""


def read_labels(labels: LabelsLike) -> Labels:
    """Read labels in any form of `parse_labels`, or a benchmark's by its name.

    Args:
        labels: As for `parse_labels`; or one of `pacl.datasets.segmentation.NAMES`, such as
            "voc20": its classes by their synonyms and, where it has a class "background", its
            words for that.

    Raises:
        InputError: No labels, an empty or repeated one, or a file that cannot be read.
    """
    if not isinstance(labels, str) or labels not in NAMES:
        return parse_labels(labels)
    benchmark = find_benchmark(labels)
    names = benchmark.class_names[int(benchmark.has_background) :]
    prompts = tuple(benchmark.synonyms.get(name, (name,)) for name in names)
    taken = {word for group in prompts for word in group}
    background = tuple(word for word in benchmark.background_words if word not in taken)
    return Labels(names, prompts, background if benchmark.has_background else ())


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Classes and the unit text embeddings of all their names."""

    labels: tuple[str, ...]
    """One name per class, in the user's order."""
    text_embeds: Float[Tensor, "N D"]
    """Unit norm; one row per name, several names may stand for one class."""
    class_of_name: Int[Tensor, " N"]
    """Index of each name's class, from 0; one more than the last for words for the background."""
