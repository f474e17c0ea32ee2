"""What every classification data set fills in: images with one class each, to test and to train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from pacl.data.images import open_image
from pacl.errors import InputError
from pacl.text.labels import Labels

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
_MISSING_SHOWN = 3


class Images(Protocol):
    """Images that are opened one at a time."""

    def __len__(self) -> int:
        """Count them."""
        ...

    def open(self, index: int) -> Image.Image:
        """Open one as upright RGB; raises InputError where it cannot be read."""
        ...


@dataclass(frozen=True)
class ImageFiles:
    """Images that are a file each."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> Image.Image:
        """Open one as upright RGB; raises InputError where it cannot be read."""
        return open_image(self.paths[index])


@dataclass(frozen=True, eq=False)
class PackedPixels:
    """Images of one size that lie in one array, such as CIFAR's."""

    pixels: UInt8[np.ndarray, "N 3 H W"]

    def __len__(self) -> int:
        return len(self.pixels)

    def open(self, index: int) -> Image.Image:
        """One of them as RGB."""
        return Image.fromarray(np.ascontiguousarray(self.pixels[index].transpose(1, 2, 0)))


@dataclass(frozen=True, eq=False)
class Split:
    """Images and the class of each.

    Raises:
        ValueError: There are more of the one than of the other.
    """

    images: Images
    targets: Int64[np.ndarray, " N"]
    """Class ids, 0 to C-1."""

    def __post_init__(self) -> None:
        if len(self.images) != len(self.targets):
            raise ValueError(f"{len(self.images)} images, {len(self.targets)} targets")

    def __len__(self) -> int:
        return len(self.targets)

    def n_per_class(self, n_classes: int) -> list[int]:
        """Count each class's images."""
        return np.bincount(self.targets, minlength=n_classes).tolist()

    def find_unreadable(self, *, n_images: int = 100) -> InputError | None:
        """Open some images, spread evenly; returns the error of the first that cannot be read."""
        n_images = min(n_images, len(self))
        for k in range(n_images):
            try:
                self.images.open(k * len(self) // n_images)
            except InputError as error:
                return error
        return None


@dataclass(frozen=True, eq=False)
class ClassificationData:
    """A set as it was found on disk."""

    labels: Labels
    """The candidate classes; class k is `labels.names[k]`."""
    test: Split
    """What is scored."""
    train: Split | None
    """Other images, to choose settings on; None where the set has none or they are not here."""


@dataclass(frozen=True, eq=False)
class ClassificationBenchmark:
    """A classification set as its authors distribute it."""

    name: str
    """As on the command line."""
    title: str
    """As in a sentence, with what is scored: "Food-101 test"."""
    templates: tuple[str, ...]
    """Prompts its class names are put in, each with one {}."""
    n_classes: int | None
    """Number in the official data set; None for a user's own."""
    n_images: int | None
    """Number in the official split that is scored; None for a user's own."""
    usual_metric: Literal["top1", "mean_per_class"]
    """What is usually reported (CLIP paper, table of data sets); all are computed."""
    read: Callable[[Path], ClassificationData]
    """Finds everything below a root; raises InputError where something is missing."""
    download: str
    """What to fetch from where, and how it lies on disk."""

    def warnings(self, data: ClassificationData) -> tuple[str, ...]:
        """What makes a score on these data another number than on the official set."""
        found = {"images": len(data.test), "classes": len(data.labels)}
        wanted = {"images": self.n_images, "classes": self.n_classes}
        return tuple(
            f"{found[what]:,} {what} of {self.title}, where {number:,} are expected: "
            "not comparable with published numbers"
            for what, number in wanted.items()
            if number not in (None, found[what])
        )


def split_of(
    rows: Iterable[tuple[Path, int]], *, title: str, download: str, check: bool = True
) -> Split:
    """A split of image files with their class ids.

    Args:
        rows: File and class id of each image.
        title: For errors.
        download: What to do where files are missing.
        check: False where the files were just listed and need not be looked for.

    Raises:
        InputError: There are no images, or some files do not exist.
    """
    listed = list(rows)
    if not listed:
        raise InputError(f"no images in {title}", fix=download)
    paths = [path for path, _ in listed]
    if check:
        require_files(paths, title=title, download=download)
    targets = np.array([target for _, target in listed], dtype=np.int64)
    return Split(ImageFiles(tuple(paths)), targets)


def require_files(paths: Sequence[Path], *, title: str, download: str) -> None:
    """Refuse where files are missing, with the first few.

    Raises:
        InputError: Any of the files is missing.
    """
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(paths)} images of {title} are missing",
            why="among them:\n" + "\n".join(missing[:_MISSING_SHOWN]),
            fix=download,
        )


def list_class_folders(folder: Path) -> dict[str, list[Path]]:
    """Sub-folders by name, in alphabetical order, with the image files below each."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    return {each.name: list_images(each) for each in folders}


def list_images(folder: Path) -> list[Path]:
    """The image files anywhere below a folder, in alphabetical order."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."
    )


def rows_of(
    folders: Mapping[str, Sequence[Path]], class_of: Mapping[str, int]
) -> list[tuple[Path, int]]:
    """File and class id of every image in class folders."""
    return [(path, class_of[name]) for name, paths in folders.items() for path in paths]


def plain_labels(names: Sequence[str]) -> Labels:
    """Classes that go by their name only, with underscores read as spaces."""
    words = tuple(" ".join(name.replace("_", " ").split()) for name in names)
    return Labels(names=words, prompts=tuple((word,) for word in words))


def read_lines(path: Path, *, kind: str, download: str) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        InputError: It is missing, empty or no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{kind} is missing: {path}", fix=download) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}", why=str(error), fix=download) from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{kind} is empty: {path}", fix=download)
    return lines
