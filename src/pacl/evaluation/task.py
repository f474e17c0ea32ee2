"""One evaluation: a data set, the words that compete in it, and every setting of the protocol."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from pacl.datasets.segmentation.dataset import Benchmark, BenchmarkDataset
from pacl.datasets.segmentation.masks import MaskDataset
from pacl.evaluation.candidates import Candidates, build_candidates
from pacl.evaluation.metrics.segmentation import NO_CLASS
from pacl.evaluation.presets import Preset
from pacl.inference.config import SegmentConfig
from pacl.inference.pamr import DILATIONS, ITERATIONS
from pacl.text.templates import PAPER7, describe_templates


@dataclass(frozen=True)
class Pamr:
    """The refinement of the second row."""

    iterations: int = ITERATIONS
    dilations: tuple[int, ...] = DILATIONS
    background_level: float | None = None
    """Of the background rule after it; None: the same as without."""


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
            values = asdict(self.preset)
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
        """What tells this evaluation from any other: data, protocol and a model's fingerprint."""
        parts = {
            "model": model,
            "protocol": self.protocol(),
            "names": self.candidates.labels.names,
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
        name: the data set's.
        dataset: a standard benchmark, or any other images with masks.
        preset: the protocol; None: config and templates, each class by its name.
        config: settings in place of a preset; of it only the batch size is taken beside one.
        templates: prompts in place of a preset's.
        use_pamr: a second row with PAMR also where the preset has none.
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


def digest(content: Any) -> str:
    """SHA-256 of a JSON value, in hex."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _by_name(dataset: MaskDataset, benchmark: Benchmark | None) -> Candidates:
    """Every class by its own prompts; "none of these" is the background's, where there is one."""
    has_background = benchmark is not None and benchmark.has_background
    return Candidates(
        labels=dataset.labels,
        class_ids=tuple(range(len(dataset.labels))),
        none_id=0 if has_background else NO_CLASS,
    )
