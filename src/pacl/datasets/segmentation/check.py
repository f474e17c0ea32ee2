"""Whether a data set on disk is what a score needs: complete, and converted by nobody else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from PIL import Image

from pacl.data.images import open_mask, read_size
from pacl.datasets.segmentation import find_benchmark
from pacl.datasets.segmentation.dataset import (
    IGNORED,
    Benchmark,
    BenchmarkDataset,
    MaskItem,
    NotThere,
    Problem,
    missing_files,
    strange_ids,
    wrong_size,
)
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.errors import InputError, PaclError
from pacl.text.labels import Labels

N_MASKS = 200
MAX_CLASSES_8_BIT = 255


@dataclass(frozen=True)
class BenchmarkReport:
    """What was found of a data set."""

    name: str
    root: str
    is_there: bool
    """Whether the folder of the data set was found at all, whole or not."""
    n_found: int
    """Images whose mask is there too."""
    n_expected: tuple[int, ...]
    """Images of the split; several numbers where lists differ, none for a user's own folder."""
    n_masks_read: int
    histogram: dict[str, int]
    """Pixels per class over the masks read, and "(ignored)"."""
    n_images: dict[str, int]
    """Number of masks read that hold a class, by class."""
    strange_ids: dict[int, int]
    """Pixels per raw id that the data set does not have."""
    problems: tuple[Problem, ...]
    """What makes a score wrong: nothing may be evaluated."""
    warnings: tuple[str, ...]
    """What makes a score one of another set of images."""
    download: str
    dataset: FolderDataset | BenchmarkDataset | None = field(default=None, repr=False)
    """The data set, opened; None where its files are not complete."""

    @property
    def is_usable(self) -> bool:
        """Whether it may be evaluated."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON values."""
        return asdict(replace(self, dataset=None)) | {"is_usable": self.is_usable}

    def describe(self) -> str:
        """Say in a line how many images there are."""
        if isinstance(self.dataset, FolderDataset):
            ignored = ", ".join(map(str, self.dataset.ignore_labels)) or "none"
            return f"{self.n_found:,} images with masks; ignored ids: {ignored}"
        expected = " or ".join(f"{n:,}" for n in self.n_expected)
        return f"{self.name}: {self.n_found:,} images with masks, {expected} expected"

    def class_table(self) -> tuple[list[str], list[list[str]]]:
        """Return a header and a row per class: its share of the pixels read.

        A user's own folder gets the ids and numbers of images, too.
        """
        n_pixels = max(1, sum(self.histogram.values()))
        if not isinstance(self.dataset, FolderDataset):
            rows = [[name, f"{n / n_pixels:.2%}"] for name, n in self.histogram.items()]
            return [f"class, in {self.n_masks_read:,} masks", "pixels"], rows
        n_pixels = max(1, n_pixels - self.histogram["(ignored)"])
        rows = [
            [f"{k} {name}", f"{n:,}", f"{self.histogram[name] / n_pixels:.1%}"]
            for k, (name, n) in enumerate(self.n_images.items())
        ]
        return ["class", "images", "pixels"], rows

    def require_usable(self) -> FolderDataset | BenchmarkDataset:
        """Return the opened data set, if it may be evaluated.

        Raises:
            InputError: It has a problem; the first, with its reason and its fix.
        """
        if self.problems:
            raise self.problems[0].error()
        assert self.dataset is not None  # what is incomplete has a problem
        return self.dataset


def check_benchmark(
    name: str,
    root: str | Path,
    *,
    n_masks: int | None = N_MASKS,
    labels: str | Path | Labels | Sequence[str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> BenchmarkReport:
    """Open a data set and look at it: counts, missing files, ids, sizes, wrong conversions.

    Args:
        name: A benchmark, or "folder" for images/ and masks/ of one's own.
        root: As for `load_benchmark`.
        n_masks: Masks to read, spread evenly over the set; None reads all.
        labels: Class names for "folder".
        on_progress: Called with the masks read and the masks to read.

    Raises:
        InputError: There is no such benchmark. Everything else is in the report.
    """
    root = Path(root)
    if name == "folder":
        try:
            folder = FolderDataset(root, labels=labels)
        except InputError as error:
            return _failed(name, root, (), error, fix=error.fix)
        benchmark = _as_benchmark(folder)
        return _check(root, benchmark, folder, folder.items, None, n_masks, on_progress)
    benchmark = find_benchmark(name)
    try:
        items = benchmark.find_items(root)
    except PaclError as error:
        return _failed(name, root, benchmark.n_images, error, fix=benchmark.download)
    missing = missing_files(items, benchmark.download)
    dataset = BenchmarkDataset(benchmark, root, items=items) if missing is None else None
    if missing is not None:
        items = tuple(i for i in items if i.image_path.is_file() and i.mask_path.is_file())
    return _check(root, benchmark, dataset, items, missing, n_masks, on_progress)


def _check(
    root: Path,
    benchmark: Benchmark,
    dataset: FolderDataset | BenchmarkDataset | None,
    items: Sequence[MaskItem],
    missing: Problem | None,
    n_masks: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> BenchmarkReport:
    """Read masks of what is there; a folder's sizes were compared when it was opened."""
    sample = _spread(items, n_masks)
    is_sized = isinstance(dataset, FolderDataset)
    found = _read_masks(sample, benchmark, is_sized, on_progress)
    strange = {raw: n for raw, n in found.counts.items() if raw not in benchmark.class_of_raw}
    problem = (
        benchmark.explain_counts(found.counts)
        or _strange(benchmark, strange)
        or _nothing_to_score(benchmark, found.counts)
    )
    return BenchmarkReport(
        name=benchmark.name,
        root=str(root),
        is_there=True,
        n_found=len(items),
        n_expected=benchmark.n_images,
        n_masks_read=len(sample),
        histogram=_histogram(benchmark, found.counts),
        n_images={name: found.n_images[k] for k, name in enumerate(benchmark.class_names)},
        strange_ids=strange,
        problems=(*(each for each in (missing, problem) if each is not None), *found.problems),
        warnings=_warnings(benchmark, len(items)),
        download=benchmark.download,
        dataset=dataset,
    )


def _nothing_to_score(benchmark: Benchmark, counts: Mapping[int, int]) -> Problem | None:
    ids = [raw for raw, n in counts.items() if n]
    if not ids or any(benchmark.class_of_raw.get(raw) != IGNORED for raw in ids):
        return None
    return Problem(
        f"every pixel read of {benchmark.title}'s masks is ignored",
        f"they hold only {', '.join(map(str, sorted(ids)))}",
        f"put back the original masks. {benchmark.download}",
    )


def _as_benchmark(folder: FolderDataset) -> Benchmark:
    """A user's folder, in the terms of a benchmark."""
    names = folder.labels.names
    return Benchmark(
        name="folder",
        title=f"the folder {folder.root}",
        class_names=names,
        synonyms={},
        background_words=(),
        class_of_raw={
            **{raw: raw for raw in range(len(names))},
            **dict.fromkeys(folder.ignore_labels, IGNORED),
        },
        n_images=(),
        find_items=lambda _: folder.items,
        explain_counts=lambda _: None,
        download='name them in classes.json: {"labels": [...], "ignore": [...]}',
    )


@dataclass(frozen=True)
class _Masks:
    """What some masks hold."""

    counts: Counter[int]
    """Pixels per raw id."""
    n_images: Counter[int | None]
    """Masks that hold a class, by its id."""
    problems: tuple[Problem, ...]
    """The first problem of each kind that a file has by itself."""


def _read_masks(
    items: Sequence[MaskItem],
    benchmark: Benchmark,
    is_sized: bool,
    on_progress: Callable[[int, int], None] | None,
) -> _Masks:
    counts: Counter[int] = Counter()
    n_images: Counter[int | None] = Counter()
    n_classes = len(benchmark.class_names)
    unreadable: list[Problem] = []
    misfits: list[Problem] = []
    narrow: list[Problem] = []
    for n_read, item in enumerate(items, start=1):
        try:
            mask = open_mask(item.mask_path)
            image_size = mask.shape if is_sized else read_size(item.image_path)
        except InputError as error:
            unreadable.append(_problem(error))
            continue
        if mask.shape != image_size:
            misfits.append(wrong_size(item, mask.shape, image_size))
        if n_classes > MAX_CLASSES_8_BIT and _is_8_bit(item.mask_path):
            narrow.append(_too_narrow(item.mask_path, n_classes))
        of_mask = _count_ids(mask)
        counts.update(of_mask)
        n_images.update({benchmark.class_of_raw.get(raw) for raw in of_mask})
        if on_progress is not None:
            on_progress(n_read, len(items))
    firsts = (group[0] for group in (unreadable, misfits, narrow) if group)
    return _Masks(counts, n_images, tuple(firsts))


def _count_ids(mask: Int64[np.ndarray, "H W"]) -> dict[int, int]:
    """Pixels per id; ids of 16 bits and less without sorting the pixels."""
    if mask.size and mask.min() >= 0 and mask.max() < 1 << 16:
        pixels = np.bincount(mask.ravel())
        ids = np.flatnonzero(pixels)
        return dict(zip(ids.tolist(), pixels[ids].tolist(), strict=True))
    ids, pixels = np.unique(mask, return_counts=True)
    return dict(zip(ids.tolist(), pixels.tolist(), strict=True))


def _is_8_bit(path: Path) -> bool:
    with Image.open(path) as image:
        return image.mode in ("1", "L", "P")


def _too_narrow(path: Path, n_classes: int) -> Problem:
    return Problem(
        f"{n_classes} classes do not fit the 8 bits of {path}",
        "ids above 255 were cut or wrapped round when the masks were written, and 255 is needed "
        "for ignored pixels",
        "write the masks again as 16-bit grey PNG",
    )


def _strange(benchmark: Benchmark, strange: dict[int, int]) -> Problem | None:
    if not strange:
        return None
    return strange_ids(benchmark, sorted(strange), where="a mask")


def _histogram(benchmark: Benchmark, counts: Counter[int]) -> dict[str, int]:
    names = benchmark.class_names
    histogram = dict.fromkeys((*names, "(ignored)"), 0)
    for raw, n_pixels in counts.items():
        class_id = benchmark.class_of_raw.get(raw)
        if class_id is not None:
            histogram["(ignored)" if class_id == IGNORED else names[class_id]] += n_pixels
    return histogram


def _warnings(benchmark: Benchmark, n_found: int) -> tuple[str, ...]:
    if not benchmark.n_images or n_found in benchmark.n_images:
        return ()
    expected = " or ".join(map(str, benchmark.n_images))
    return (
        f"{n_found} images of {benchmark.title}, where {expected} are expected: "
        "not comparable with published numbers",
    )


def _spread(items: Sequence[MaskItem], n_masks: int | None) -> list[MaskItem]:
    """At most n_masks of the items, at even distances."""
    if n_masks is None or len(items) <= n_masks:
        return list(items)
    return [items[k * len(items) // n_masks] for k in range(n_masks)]


def _problem(error: PaclError) -> Problem:
    return Problem(error.what, error.why, error.fix)


def _failed(
    name: str, root: Path, n_expected: tuple[int, ...], error: PaclError, *, fix: str
) -> BenchmarkReport:
    return BenchmarkReport(
        name=name,
        root=str(root),
        is_there=not isinstance(error, NotThere),
        n_found=0,
        n_expected=n_expected,
        n_masks_read=0,
        histogram={},
        n_images={},
        strange_ids={},
        problems=(_problem(error),),
        warnings=(),
        download=fix,
    )
