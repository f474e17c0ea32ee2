"""Data sets with known classes: one file each, with names, ids and source."""

from __future__ import annotations

from pathlib import Path

from pacl.datasets.segmentation.ade import ADE150
from pacl.datasets.segmentation.cityscapes import CITYSCAPES
from pacl.datasets.segmentation.coco import COCO_OBJECT, COCO_STUFF171
from pacl.datasets.segmentation.context import CONTEXT59, CONTEXT60
from pacl.datasets.segmentation.dataset import Benchmark, BenchmarkDataset
from pacl.datasets.segmentation.voc import VOC20, VOC21
from pacl.errors import InputError

BENCHMARKS: tuple[Benchmark, ...] = (
    VOC20,
    VOC21,
    CONTEXT59,
    CONTEXT60,
    COCO_OBJECT,
    COCO_STUFF171,
    ADE150,
    CITYSCAPES,
)
NAMES = tuple(benchmark.name for benchmark in BENCHMARKS)
"""What the command line calls them."""


def find_benchmark(name: str) -> Benchmark:
    """The definition of a benchmark.

    Raises:
        InputError: There is none of that name.
    """
    for benchmark in BENCHMARKS:
        if benchmark.name == name:
            return benchmark
    raise InputError(f"no benchmark called {name!r}", fix=f"choose one of: {', '.join(NAMES)}")


def load_benchmark(name: str, root: str | Path) -> BenchmarkDataset:
    """A benchmark's images and masks, in its official layout on disk.

    Args:
        name: One of NAMES.
        root: The folder it was unpacked in, or one above it that holds several benchmarks.

    Raises:
        InputError: The name is unknown, root does not hold the data set, or files are missing.
        EnvironmentProblem: Pascal Context has to be converted, and pycocotools is not installed.
    """
    return BenchmarkDataset(find_benchmark(name), root)


def needs_root(name: str) -> InputError:
    """The error where a set is named without the folder that holds it."""
    return InputError(
        f"{name} needs --root", fix="add --root DIR, the folder that the data sets were unpacked in"
    )
