"""One evaluation: a data set, the words that compete in it, and every setting of the protocol."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from pacl.datasets.segmentation import NAMES
from pacl.datasets.segmentation.dataset import Benchmark, BenchmarkDataset
from pacl.datasets.segmentation.masks import MaskDataset
from pacl.evaluation.metrics.segmentation import NO_CLASS
from pacl.evaluation.presets import Preset, build_preset
from pacl.evaluation.records import digest
from pacl.inference.config import SegmentConfig
from pacl.inference.image_path import OWN_PATH, ImagePath
from pacl.inference.pamr import DILATIONS, ITERATIONS
from pacl.text.cleaning import cleaning_mark
from pacl.text.labels import Labels
from pacl.text.templates import PAPER7, describe_templates

DEFAULT_PRESET = "sclip"


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


@dataclass(frozen=True)
class Pamr:
    """The refinement of the second row."""

    iterations: int = ITERATIONS
    dilations: tuple[int, ...] = DILATIONS
    background_level: float | None = None
    """Level of the background rule after PAMR; None: the same as without."""


@dataclass(frozen=True, eq=False)
class Task:
    """A data set under a protocol: all that decides a score besides the model."""

    name: str
    """As on the command line, "voc20"; a folder's own name."""
    dataset: MaskDataset
    candidates: Candidates
    config: SegmentConfig
    templates: tuple[str, ...]
    """The prompts that each word is put in, averaged."""
    preset: Preset | None = None
    """The protocol that the rest was taken from, if it was one with a name."""
    pamr: Pamr | None = None
    """None: one row, without it."""

    @property
    def path(self) -> ImagePath:
        """How images reach the encoder, and scores come back to their pixels."""
        return OWN_PATH if self.preset is None else self.preset.path

    @property
    def is_restricted(self) -> bool:
        """Whether only the classes in an image's own truth compete in it."""
        return self.preset is not None and self.preset.candidates == "present"

    @property
    def is_comparable(self) -> bool:
        """Whether the protocol is one that published numbers were made with."""
        return self.preset is not None and self.preset.comparable

    def protocol(self) -> dict[str, Any]:
        """Every setting, the words and the refinement, by name, with a hash over them."""
        if self.preset is not None:
            values = self.preset.values()
        else:
            values = {
                "name": "own settings",
                "candidates": "all classes",
                "templates": list(self.templates),
                "resolution": "original",
                **self.config.decisive(),
            }
        values["words"] = [list(prompts) for prompts in self.candidates.labels.prompts]
        values["pamr"] = None if self.pamr is None else asdict(self.pamr)
        return values | {"hash": digest(values)[:12]}

    def describe(self) -> str:
        """The protocol in a few lines, to stand above a score."""
        lines = [self._describe_own() if self.preset is None else self.preset.describe()]
        if self.pamr is not None:
            lines.append(f"with PAMR: {self.pamr.iterations} iterations, "
                         f"dilations {', '.join(map(str, self.pamr.dilations))}")  # fmt: skip
        lines.append(f"hash of settings, words and PAMR: {self.protocol()['hash']}")
        return "\n".join(lines)

    def _describe_own(self) -> str:
        values = self.protocol()
        values["templates"] = describe_templates(self.templates)
        values["words"] = f"{sum(map(len, values['words']))} words"
        hidden = ("name", "hash", "pamr")
        knobs = [f"{knob} {values[knob]}" for knob in values if knob not in hidden]
        return f"own settings on {self.name}: " + ", ".join(knobs)

    def key(self, model: str) -> str:
        """What identifies this evaluation: data, protocol and a model's fingerprint."""
        labels = self.candidates.labels
        words = (word for prompts in labels.prompts for word in (*prompts, *self.templates))
        parts = {
            "model": model + cleaning_mark(words),
            "protocol": self.protocol(),
            "names": labels.names,
            "data": digest_data(self.dataset),
        }
        return digest(parts)


def build_task(
    name: str,
    dataset: MaskDataset,
    *,
    preset: Preset | None,
    config: SegmentConfig | None = None,
    templates: tuple[str, ...] = PAPER7,
    use_pamr: bool = False,
) -> Task:
    """Put together a data set and a protocol.

    Args:
        name: The data set's name.
        dataset: A standard benchmark, or any other images with masks.
        preset: The protocol; None: config and templates, each class by its name.
        config: Settings in place of a preset; of it only the batch size is taken beside one.
        templates: Prompts in place of a preset's.
        use_pamr: Add a second row with PAMR, also where the preset has none.
    """
    config = config or SegmentConfig()
    benchmark = dataset.benchmark if isinstance(dataset, BenchmarkDataset) else None
    pamr = Pamr() if use_pamr else None
    if preset is None:
        candidates = _by_name(dataset, benchmark)
        return Task(name, dataset, candidates, config, templates, pamr=pamr)
    if preset.pamr_iterations is not None:
        pamr = Pamr(preset.pamr_iterations, preset.pamr_dilations, preset.pamr_background_level)
    return Task(
        name,
        dataset,
        _by_name(dataset, None) if benchmark is None else build_candidates(benchmark, preset),
        preset.segment_config(batch_size=config.batch_size),
        preset.templates,
        preset=preset,
        pamr=pamr,
    )


def choose_preset(name: str | None, benchmark: str, config: SegmentConfig) -> Preset | None:
    """The protocol of that name; without one, SCLIP's on the benchmarks, unless config says more.

    Raises:
        InputError: There is no such protocol.
    """
    if name is None and benchmark in NAMES and not changed_flags(config):
        name = DEFAULT_PRESET
    return None if name is None else build_preset(name, benchmark)


def changed_flags(config: SegmentConfig) -> list[str]:
    """The options of segmenting that differ from the defaults, but for the batch size."""
    changed = asdict(replace(config, batch_size=SegmentConfig.batch_size))
    names = [each.name for each in fields(config) if changed[each.name] != each.default]
    return ["--" + name.replace("_", "-") for name in names]


def with_background_level(config: SegmentConfig, pamr: Pamr) -> SegmentConfig:
    """The settings for refined scores."""
    if pamr.background_level is None:
        return config
    return replace(config, background_level=pamr.background_level)


def digest_data(dataset: MaskDataset) -> str:
    """A digest of the class names and of every image's and mask's name and size in bytes."""
    files = [
        (path.name, path.stat().st_size)
        for item in dataset.items
        for path in (item.image_path, item.mask_path)
    ]
    return digest([list(dataset.labels.names), dataset.ignore_label, files])


def build_candidates(benchmark: Benchmark, preset: Preset) -> Candidates:
    """The words of a data set under a protocol.

    Without synonyms each class goes by its name, as the preset spells it. The class "background",
    where there is one, competes by the protocol's words for it, or not at all: then only pixels
    that the background rule takes from the others get its id. A word for the background that is
    also a class's own ("bed" in COCO-Object) ties, and the first class wins: a class without any
    other word does not compete.
    """
    names, prompts, class_ids = [], [], []
    if benchmark.has_background and preset.background_prompts != "none":
        is_by_words = preset.background_prompts == "words"
        names.append("background")
        words = tuple(w for w in benchmark.background_words if w not in preset.left_out)
        prompts.append(words if is_by_words else ("background",))
        class_ids.append(0)
    taken = {word for words in prompts for word in words}
    first = 1 if benchmark.has_background else 0
    for class_id, (name, word) in enumerate(
        zip(benchmark.class_names[first:], _spelled(benchmark, preset)[first:], strict=True), first
    ):
        words = benchmark.synonyms.get(name, (word,)) if preset.use_synonyms else (word,)
        words = tuple(word for word in words if word not in taken)
        if words:
            names.append(name)
            prompts.append(words)
            class_ids.append(class_id)
    return Candidates(
        labels=Labels(names=tuple(names), prompts=tuple(prompts)),
        class_ids=tuple(class_ids),
        none_id=0 if benchmark.has_background else NO_CLASS,
    )


def _spelled(benchmark: Benchmark, preset: Preset) -> tuple[str, ...]:
    """The class names in the preset's vocabulary."""
    is_plain = preset.vocabulary == "plain"
    names = benchmark.class_names if is_plain else benchmark.official_names
    if preset.vocabulary == "joined":
        names = tuple(name.replace(" ", "") for name in names)
    return tuple(dict(preset.renames).get(name, name) for name in names)


def _by_name(dataset: MaskDataset, benchmark: Benchmark | None) -> Candidates:
    """Every class by its own prompts; "none of these" is the background's, where there is one."""
    has_background = benchmark is not None and benchmark.has_background
    return Candidates(
        labels=dataset.labels,
        class_ids=tuple(range(len(dataset.labels))),
        none_id=0 if has_background else NO_CLASS,
    )
