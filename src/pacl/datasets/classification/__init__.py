"""Zero-shot classification: twelve sets that users of CLIP know, and folders of one's own.

The PACL paper reports twelve sets; which they are is unknown. These are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pacl.datasets.classification.caltech import CALTECH101
from pacl.datasets.classification.cars import CARS
from pacl.datasets.classification.cifar import CIFAR10, CIFAR100
from pacl.datasets.classification.dataset import ClassificationBenchmark, ClassificationData
from pacl.datasets.classification.flowers import FLOWERS102
from pacl.datasets.classification.folder import FOLDER
from pacl.datasets.classification.food import FOOD101
from pacl.datasets.classification.imagenet import IMAGENET, IMAGENET_A, IMAGENET_R, IMAGENET_V2
from pacl.datasets.classification.pets import PETS
from pacl.datasets.classification.storybook import STORYBOOK_THINGS
from pacl.datasets.classification.textures import DTD
from pacl.errors import InputError

DRAWN_IN = Path("runs")
SUITE: tuple[ClassificationBenchmark, ...] = (
    IMAGENET,
    IMAGENET_A,
    IMAGENET_R,
    IMAGENET_V2,
    CALTECH101,
    CIFAR10,
    CIFAR100,
    FOOD101,
    FLOWERS102,
    PETS,
    CARS,
    DTD,
)
"""The twelve sets."""
CLASSIFICATION: tuple[ClassificationBenchmark, ...] = (*SUITE, FOLDER, STORYBOOK_THINGS)
CLASSIFICATION_NAMES = tuple(benchmark.name for benchmark in CLASSIFICATION)
"""What the command line calls them."""


def find_classification(name: str) -> ClassificationBenchmark:
    """The definition of a classification set.

    Raises:
        InputError: There is none of that name.
    """
    for benchmark in CLASSIFICATION:
        if benchmark.name == name:
            return benchmark
    raise InputError(
        f"no classification set called {name!r}",
        fix=f"choose one of: {', '.join(CLASSIFICATION_NAMES)}",
    )


@dataclass(frozen=True, eq=False)
class ClassificationSet:
    """A classification data set that is there and complete."""

    benchmark: ClassificationBenchmark
    data: ClassificationData
    root: Path

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return self.benchmark.name

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes a score one of other data than the official set."""
        return self.benchmark.warnings(self.data)

    @property
    def is_drawn(self) -> bool:
        """Whether its images are Storybook's."""
        return self.benchmark is STORYBOOK_THINGS

    def describe(self) -> str:
        """Say in a line how many images there are."""
        n_images, title = self.benchmark.n_images, self.benchmark.title
        expected = "" if n_images is None else f", {n_images:,} expected"
        return f"{self.name}: {len(self.data.test):,} images of {title}{expected}"

    def class_table(self) -> tuple[list[str], list[list[str]]]:
        """Return a header and a row per class: its images in each split that is here."""
        data = self.data
        counts = [each.n_per_class(len(data.labels)) for each in (data.test, data.train) if each]
        rows = zip(data.labels.names, *([f"{n:,}" for n in each] for each in counts), strict=True)
        return ["class", "test", "train"][: 1 + len(counts)], [list(row) for row in rows]


def open_classification(name: str, *, root: Path | None) -> ClassificationSet:
    """Open a classification data set, in its official layout on disk.

    Args:
        name: One of CLASSIFICATION_NAMES.
        root: The folder it was unpacked in, or one above it that holds several sets. None: for
            the drawn set only.

    Raises:
        InputError: The name is unknown, root does not hold the set, or files are missing.
        EnvironmentProblem: The set's lists are MATLAB files, and scipy is not installed.
    """
    benchmark = find_classification(name)
    if root is None:
        if benchmark is not STORYBOOK_THINGS:
            raise InputError(
                f"where is {name}?",
                fix=f"pacl evaluate {name} --root FOLDER, the folder that holds it",
            )
        root = DRAWN_IN
    return ClassificationSet(benchmark, benchmark.read(root), root)
