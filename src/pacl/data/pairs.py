"""Image-caption pairs: the interface for training, and pairs of image files with captions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image

from pacl.data.columns import choose_columns
from pacl.data.images import open_image
from pacl.data.layouts import find_layout
from pacl.errors import InputError

_N_EXAMPLES = 3


class PairSource(Protocol):
    """Captioned images by row number, from a table or any other storage."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    @property
    def captions(self) -> Sequence[Sequence[str]]:
        """The captions of every image, at least one each."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies image names and captions in any folder; a run resumes only with the same."""
        ...

    @property
    def images_fingerprint(self) -> str:
        """Identifies the present image files: a token cache is valid for these only."""
        ...

    def open_image(self, row: int) -> Image.Image:
        """Open one image, upright RGB.

        Raises:
            InputError: It cannot be read.
        """
        ...

    def check_image(self, row: int) -> None:
        """Find out whether an image can be opened, in less time than opening it takes.

        Raises:
            InputError: It cannot be read.
        """
        ...

    def select(self, rows: Sequence[int]) -> PairSource:
        """Return a source of some of the rows, in that order."""
        ...

    @property
    def n_skipped(self) -> int:
        """Number of rows that gave no pair."""
        ...

    def summary(self) -> str:
        """What was read and what was skipped and why, one fact per line."""
        ...


@dataclass
class PairsReport:
    """The outcome of reading a caption table; every row that is skipped is counted.

    Attributes:
        source: The table or folder that was read.
        layout: What it is, such as CSV.
        encoding: The text encoding it was read in.
        image_column, caption_column: The columns that were used.
        n_rows: Rows below the header, without blank lines.
        n_pairs, n_images: Pairs and images that were kept.
        n_no_image_name, n_missing_images, n_empty_captions, n_duplicates, n_malformed: Rows
            skipped, each counted once: the image cell is empty; the file does not exist; the
            caption is empty; the same image and caption came before; the number of cells is
            wrong or the line is not a JSON object.
        examples: Line and reason of the first skipped rows.
    """

    source: Path
    encoding: str
    image_column: str
    caption_column: str
    n_rows: int = 0
    n_pairs: int = 0
    n_images: int = 0
    n_no_image_name: int = 0
    n_missing_images: int = 0
    n_empty_captions: int = 0
    n_duplicates: int = 0
    n_malformed: int = 0
    layout: str = ""
    examples: list[str] = field(default_factory=list)

    @property
    def n_skipped(self) -> int:
        """Number of rows without a pair."""
        return self.n_rows - self.n_pairs

    def summary(self) -> str:
        """What was read and what was skipped and why, one fact per line."""
        lines = [
            f"{self.n_pairs:,} captions of {self.n_images:,} images from {self.source} "
            f"({self.layout}, columns {self.image_column}, {self.caption_column}; {self.encoding})"
        ]
        skipped = {
            "no image name": self.n_no_image_name,
            "image file missing": self.n_missing_images,
            "empty caption": self.n_empty_captions,
            "repeated": self.n_duplicates,
            "malformed": self.n_malformed,
        }
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in skipped.items() if count)
        if reasons:
            lines.append(f"skipped {self.n_skipped:,} of {self.n_rows:,} rows: {reasons}")
            lines += [f"  {example}" for example in self.examples]
        return "\n".join(lines)


@dataclass(frozen=True)
class Pairs:
    """Images and their captions.

    Attributes:
        image_paths: One per image, in the table's order; every file exists.
        captions: The captions of each image, at least one, with white space normalised.
        report: What was read and skipped.
    """

    image_paths: list[Path]
    captions: list[list[str]]
    report: PairsReport

    def __len__(self) -> int:
        return len(self.image_paths)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with file names or captions, not with the folder."""
        digest = hashlib.sha256()
        for path, texts in zip(self.image_paths, self.captions, strict=True):
            digest.update("\0".join([path.name, *texts, ""]).encode())
        return digest.hexdigest()[:16]

    @property
    def images_fingerprint(self) -> str:
        """Identifies the files: changes when one is added, reordered or written again."""
        digest = hashlib.sha256()
        for path in self.image_paths:
            try:
                status = path.stat()
                digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
            except OSError:
                digest.update(f"{path.name}\0missing\n".encode())
        return digest.hexdigest()[:16]

    def open_image(self, row: int) -> Image.Image:
        """Open one image, see `pacl.data.images.open_image`."""
        return open_image(self.image_paths[row])

    def check_image(self, row: int) -> None:
        """See `PairSource`."""
        open_image(self.image_paths[row], is_check=True)

    def select(self, rows: Sequence[int]) -> Pairs:
        """Return the pairs of some images; the report stays that of the whole table."""
        paths = [self.image_paths[row] for row in rows]
        return Pairs(paths, [self.captions[row] for row in rows], self.report)

    @property
    def n_skipped(self) -> int:
        """Number of rows that gave no pair."""
        return self.report.n_skipped

    def summary(self) -> str:
        """What was read and what was skipped and why, one fact per line."""
        return self.report.summary()


def read_pairs(
    path: str | Path, *, image_key: str | None = None, caption_key: str | None = None
) -> Pairs:
    """Read image-caption pairs; an image on several rows has several captions.

    Args:
        path: A CSV, TSV, JSONL or Parquet file, a COCO captions JSON, or a folder with one of
            these or with a text beside each image; see `pacl.data.layouts.find_layout`.
        image_key, caption_key: Names of the columns; None: the first in the table of those
            in `pacl.data.columns`. Relative image paths start at the
            table's folder.

    Returns:
        The pairs whose image file exists. The images are not opened here.

    Raises:
        InputError: There is no table, no such column, or no usable row.
    """
    layout = find_layout(Path(path))
    source, table, directory = layout.source, layout.table, layout.directory
    image_key, caption_key = choose_columns(table, Path(path), source, image_key, caption_key)
    report = PairsReport(source, table.encoding, image_key, caption_key, layout=layout.name)
    captions: dict[Path, list[str]] = {}
    is_there: dict[Path, bool] = {}
    for line, cells in table.rows:
        report.n_rows += 1
        reason = _add_row(cells, directory, captions, is_there, report)
        if reason and len(report.examples) < _N_EXAMPLES:
            report.examples.append(f"line {line}: {reason}")
    report.n_images = len(captions)
    if not captions:
        raise InputError(
            f"no usable row in {source.name}",
            why=report.summary() if report.n_rows else "it has no rows below the header",
            fix=f"image paths start at {directory}",
        )
    return Pairs(list(captions), list(captions.values()), report)


def _add_row(
    cells: dict[str, str] | None,
    directory: Path,
    captions: dict[Path, list[str]],
    is_there: dict[Path, bool],
    report: PairsReport,
) -> str:
    """Add one row to `captions`, or count why not and return the reason."""
    if cells is None:
        report.n_malformed += 1
        return "malformed: wrong number of cells, or not a JSON object"
    name = cells[report.image_column].strip()
    if not name:
        report.n_no_image_name += 1
        return "no image name"
    image_path = directory / name
    if not _is_there(image_path, is_there):
        report.n_missing_images += 1
        is_url = "://" in name
        return f"{name} is a URL: download the images first" if is_url else f"no file {image_path}"
    caption = " ".join(cells[report.caption_column].split())
    if not caption:
        report.n_empty_captions += 1
        return f"empty caption of {name}"
    if caption in captions.get(image_path, ()):
        report.n_duplicates += 1
        return f"{name} has this caption already: {caption}"
    captions.setdefault(image_path, []).append(caption)
    report.n_pairs += 1
    return ""


def _is_there(image_path: Path, known: dict[Path, bool]) -> bool:
    if image_path not in known:
        try:
            known[image_path] = image_path.is_file()
        except OSError:  # a name that no file can have, such as a long caption
            known[image_path] = False
    return known[image_path]
