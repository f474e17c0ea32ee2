"""Which words compete for an image's pixels under a protocol, and which class each stands for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int64

from pacl.datasets.segmentation.dataset import Benchmark
from pacl.evaluation.metrics.segmentation import NO_CLASS
from pacl.evaluation.presets import Preset
from pacl.text.labels import Labels


@dataclass(frozen=True)
class Candidates:
    """The labels to segment with, and the way back from them to class ids."""

    labels: Labels
    class_ids: tuple[int, ...]
    """The class id that each label stands for."""
    none_id: int
    """The class id of pixels that are none of the labels: the background's, or NO_CLASS."""

    def to_class_ids(self, label_map: Int[np.ndarray, "H W"]) -> Int64[np.ndarray, "H W"]:
        """From a segmentation's numbers (0 = none, k = the k-th label) to class ids."""
        return np.array((self.none_id, *self.class_ids), dtype=np.int64)[label_map]

    def present(self, class_ids: Iterable[int]) -> tuple[int, ...]:
        """Indices of the labels for these classes, as `label_pixels` takes for its candidates."""
        wanted = set(class_ids)
        return tuple(k for k, class_id in enumerate(self.class_ids) if class_id in wanted)


def build_candidates(benchmark: Benchmark, preset: Preset) -> Candidates:
    """The words of a data set under a protocol.

    Without synonyms each class goes by its name. The class "background", where there is one,
    competes by the protocol's words for it, or not at all: then only pixels that the background
    rule takes from the others get its id. A word for the background that is also a class's own
    ("bed" in COCO-Object) stays with the class.
    """
    first = 1 if benchmark.has_background else 0
    names = list(benchmark.class_names[first:])
    prompts = [
        benchmark.synonyms.get(name, (name,)) if preset.use_synonyms else (name,) for name in names
    ]
    class_ids = list(range(first, first + len(names)))
    if benchmark.has_background and preset.background_prompts != "none":
        words = ("background",)
        if preset.background_prompts == "words":
            taken = {word for group in prompts for word in group}
            words = tuple(word for word in benchmark.background_words if word not in taken)
        names.insert(0, "background")
        prompts.insert(0, words)
        class_ids.insert(0, 0)
    return Candidates(
        labels=Labels(names=tuple(names), prompts=tuple(prompts)),
        class_ids=tuple(class_ids),
        none_id=0 if benchmark.has_background else NO_CLASS,
    )
