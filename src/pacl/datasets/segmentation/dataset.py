"""What every benchmark file fills in, and the data set that is read with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from pacl.data.images import open_mask, read_size
from pacl.datasets.segmentation.masks import MaskItem
from pacl.errors import InputError
from pacl.text.labels import Labels

IGNORED = -1
"""In `Benchmark.class_of_raw`: pixels with this raw id are not scored."""
IGNORE_LABEL = 255
"""What `BenchmarkDataset.read_mask` puts for them."""
_MISSING_SHOWN = 3


class NotThere(InputError):
    """The data set's own folder was not found."""


@dataclass(frozen=True)
class Problem:
    """Something that makes a score wrong or impossible, in the three parts of an error."""

    what: str
    why: str
    fix: str

    def error(self) -> InputError:
        """The same, to be raised."""
        return InputError(self.what, why=self.why, fix=self.fix)


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A data set as its authors distribute it, and how its raw ids become classes."""

    name: str
    """As on the command line, "voc20"."""
    title: str
    """As in a sentence, with the split: "Pascal VOC 2012 val"."""
    class_names: tuple[str, ...]
    """By id. Where the first is "background", it is a class that is scored."""
    synonyms: Mapping[str, tuple[str, ...]]
    """Per class, for some classes: all words that stand for it, in place of its name."""
    background_words: tuple[str, ...]
    """Words for stuff that is no class; what of them fits best is the score of "background"."""
    class_of_raw: Mapping[int, int]
    """Class id, or IGNORED, of every id that the annotation files may hold."""
    n_images: tuple[int, ...]
    """Images of the split; several numbers where the lists in use differ."""
    find_items: Callable[[Path], tuple[MaskItem, ...]]
    """All images below a root with their masks, whether the files exist or not. Raises InputError
    where folders or the split file are missing."""
    explain_counts: Callable[[Mapping[int, int]], Problem | None]
    """From pixels per raw id over many masks: which wrong conversion they betray, if any."""
    download: str
    """What to fetch from where, and how it lies on disk."""
    official: Mapping[str, str] = field(default_factory=dict)
    """The data set's own spelling of a class, for classes whose name here is another."""

    @property
    def official_names(self) -> tuple[str, ...]:
        """The class names as the data set's own list has them; the first word of each entry."""
        return tuple(self.official.get(name, name) for name in self.class_names)

    @property
    def has_background(self) -> bool:
        """Whether "none of the others" is a class of its own, with id 0."""
        return self.class_names[0] == "background"


class BenchmarkDataset:
    """The images and masks of a benchmark; `labels` are its plain class names.

    Args:
        benchmark: The definition.
        root: The folder that holds the data set as it was unpacked, or a folder above it.
        items: What `benchmark.find_items` found there, every file of it present; None: found now.

    Attributes:
        labels: The classes; id k is `labels.names[k]`; each name is its own only prompt.
        ignore_labels: (255,), what `read_mask` puts for pixels that are not scored.
        ignore_label: The same as one number.
        items: Image and mask files, in a fixed order.

    Raises:
        InputError: `root` does not hold the data set, or files are missing.
    """

    def __init__(
        self, benchmark: Benchmark, root: str | Path, *, items: tuple[MaskItem, ...] | None = None
    ) -> None:
        self.benchmark = benchmark
        self.root = Path(root)
        if items is None:
            items = benchmark.find_items(self.root)
            problem = missing_files(items, benchmark.download)
            if problem is not None:
                raise problem.error()
        self.items = items
        names = benchmark.class_names
        self.labels = Labels(names=names, prompts=tuple((name,) for name in names))
        self.ignore_label = IGNORE_LABEL
        self.ignore_labels = (IGNORE_LABEL,)
        self._class_table = _build_table(benchmark.class_of_raw)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[MaskItem]:
        return iter(self.items)

    def read_mask(self, item: MaskItem) -> Int64[np.ndarray, "H W"]:
        """The class id of each pixel, 0 to C-1, or `ignore_label`.

        Raises:
            InputError: The mask cannot be read, is of another size than its image, or holds an id
                that the data set does not have.
        """
        raw = open_mask(item.mask_path)
        image_size = read_size(item.image_path)
        if raw.shape != image_size:
            raise wrong_size(item, raw.shape, image_size).error()
        in_table = raw.clip(0, len(self._class_table) - 1)
        mask = np.where(raw == in_table, self._class_table[in_table], _UNKNOWN)
        if (mask == _UNKNOWN).any():
            problem = self.benchmark.explain_counts(dict.fromkeys(np.unique(raw).tolist(), 1))
            strange = np.unique(raw[mask == _UNKNOWN]).tolist()
            path = str(item.mask_path)
            raise (problem or strange_ids(self.benchmark, strange, where=path)).error()
        return mask


_UNKNOWN = -2


def _build_table(class_of_raw: Mapping[int, int]) -> Int64[np.ndarray, " raw_ids"]:
    table = np.full(max(class_of_raw) + 1, _UNKNOWN, dtype=np.int64)
    for raw, class_id in class_of_raw.items():
        table[raw] = IGNORE_LABEL if class_id == IGNORED else class_id
    return table


def names(text: str) -> tuple[str, ...]:
    """Names separated by commas, over any number of lines."""
    return tuple(" ".join(name.split()) for name in text.split(",") if name.strip())


def find_base(root: Path, places: Sequence[str], *, holds: str, title: str, download: str) -> Path:
    """The first of the places below root (or root itself) that holds a certain file or folder.

    Raises:
        NotThere: None of them holds it; says where it was looked for and what to download.
    """
    bases = [*(root / place for place in places), root]
    for base in bases:
        if (base / holds).exists():
            return base
    raise NotThere(
        f"no {title} in {root}" if root.is_dir() else f"no folder {root}",
        why="looked for " + ", ".join(str(base / holds) for base in bases),
        fix=f"give the folder that holds it as --root, or {download}",
    )


def need(path: Path, *, kind: str, download: str) -> Path:
    """The path itself, if it is there.

    Raises:
        InputError: It does not exist.
    """
    if path.exists():
        return path
    raise InputError(f"{kind} is missing: {path}", fix=download)


def read_split(path: Path, *, download: str) -> list[str]:
    """The image names in a split file, one per line.

    Raises:
        InputError: The file is missing or empty.
    """
    lines = need(path, kind="the split file", download=download).read_text().splitlines()
    image_names = [line.strip() for line in lines if line.strip()]
    if not image_names:
        raise InputError(f"the split file {path} is empty", fix=download)
    return image_names


def find_images(folder: Path, pattern: str, *, download: str) -> list[Path]:
    """The images in a folder, in order.

    Raises:
        InputError: There are none.
    """
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise InputError(f"no images in {folder}", fix=download)
    return paths


def listed_items(base: Path, masks: Path, split: Path, *, download: str) -> tuple[MaskItem, ...]:
    """The images and masks of a Pascal VOC folder that a split file lists.

    Raises:
        InputError: The split file is missing or empty.
    """
    stems = read_split(split, download=download)
    return tuple(
        MaskItem(base / "JPEGImages" / f"{stem}.jpg", masks / f"{stem}.png") for stem in stems
    )


def missing_files(items: Sequence[MaskItem], download: str) -> Problem | None:
    """That images or masks are not there, with the first few."""
    paths = [path for item in items for path in (item.image_path, item.mask_path)]
    missing = [str(path) for path in paths if not path.is_file()]
    if not missing:
        return None
    shown = "\n".join(missing[:_MISSING_SHOWN])
    return Problem(f"{len(missing)} of {len(paths)} files are missing", f"among them:\n{shown}",
                   download)  # fmt: skip


def wrong_size(item: MaskItem, mask_size: tuple[int, ...], image_size: tuple[int, int]) -> Problem:
    """That a mask does not fit its image; sizes are (height, width)."""
    return Problem(
        f"mask {item.mask_path} is {mask_size[1]} x {mask_size[0]} px, "
        f"its image {image_size[1]} x {image_size[0]}",
        f"image: {item.image_path}",
        "take the masks as distributed; scaled ones blur the truth",
    )


def strange_ids(benchmark: Benchmark, ids: Sequence[int], *, where: str) -> Problem:
    """That masks hold ids which the data set does not have."""
    return Problem(
        f"{where} holds ids that {benchmark.title} does not have: {', '.join(map(str, ids[:8]))}",
        "the masks are of another data set, or another tool has converted them",
        benchmark.download,
    )
