"""Pairs from Hugging Face `datasets`: a folder that `save_to_disk` wrote, or a data set of the hub.

Needs `datasets`, from the extra `data`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pacl.data.columns import choose_columns
from pacl.data.images import open_image
from pacl.data.pairs import PairsReport
from pacl.data.tables import Table, spread
from pacl.errors import InputError
from pacl.runtime.packages import require_packages

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class DatasetPairs:
    """Rows of a data set with an image column; see `pacl.data.pairs.PairSource`.

    Attributes:
        dataset: Its images are not decoded: each is a path or bytes.
        rows: The rows that have a caption.
        captions: Their captions, at least one each.
        report: What was read and skipped.
    """

    dataset: Dataset
    rows: list[int]
    captions: list[list[str]]
    report: PairsReport

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with row numbers or captions."""
        digest = hashlib.sha256()
        for row, texts in zip(self.rows, self.captions, strict=True):
            digest.update("\0".join([str(row), *texts, ""]).encode())
        return digest.hexdigest()[:16]

    @property
    def images_fingerprint(self) -> str:
        """Identifies the data set as `datasets` does, and the rows."""
        content = f"{self.dataset._fingerprint} {self.rows}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def open_image(self, row: int) -> Image.Image:
        """Open one image, see `pacl.data.images.open_image`."""
        return self._open(row)

    def check_image(self, row: int) -> None:
        """See `PairSource`."""
        self._open(row, is_check=True)

    def _open(self, row: int, *, is_check: bool = False) -> Image.Image:
        cell = self.dataset[self.rows[row]][self.report.image_column]
        if isinstance(cell, dict):
            cell = cell["bytes"] or cell["path"]
        name = f"the image of row {self.rows[row]} of {self.report.source}"
        if cell is None:
            raise InputError(f"{name} is missing")
        return open_image(cell, name=name, is_check=is_check)

    def select(self, rows: Sequence[int]) -> DatasetPairs:
        """Return the pairs of some images; the report stays that of the whole data set."""
        kept = [self.rows[row] for row in rows]
        return DatasetPairs(self.dataset, kept, [self.captions[r] for r in rows], self.report)

    @property
    def n_skipped(self) -> int:
        """Number of captions that gave no pair."""
        return self.report.n_skipped

    def summary(self) -> str:
        """What was read and what was skipped and why, one fact per line."""
        return self.report.summary()


def is_saved_dataset(path: Path) -> bool:
    """Return whether `datasets` wrote this folder."""
    return any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def read_saved(path: Path, *, image_key: str | None, caption_key: str | None) -> DatasetPairs:
    """Read a folder that `Dataset.save_to_disk` wrote; of several splits, train.

    Raises:
        InputError: It is damaged, or there is no such column.
        EnvironmentProblem: `datasets` is missing.
    """
    datasets = _import_datasets(path)
    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the saved data set {path}", why=str(error)) from error
    return _collect(_choose_split(loaded, path), path, "saved datasets", image_key, caption_key)


def read_hub(name: str, *, image_key: str | None, caption_key: str | None) -> DatasetPairs:
    """Read a data set of the Hugging Face hub, such as owner/name; of several splits, train.

    Raises:
        InputError: There is no such data set or column.
        EnvironmentProblem: `datasets` is missing.
    """
    datasets = _import_datasets(f"{name}, no file or folder here, from the hub")
    try:
        loaded = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no such file or folder, nor a data set of the hub: {name}",
            why=str(error).splitlines()[0],
            fix="give a CSV, a folder, tars, or the data set's owner/name",
        ) from error
    place = Path(name)
    return _collect(_choose_split(loaded, place), place, "hub data set", image_key, caption_key)


def _import_datasets(what: str | Path) -> Any:
    require_packages(["datasets"], purpose=f"reading {what}")
    import datasets

    return datasets


def _choose_split(loaded: Any, place: Path) -> Dataset:
    if not isinstance(loaded, dict):
        return loaded
    if "train" not in loaded and len(loaded) != 1:
        raise InputError(
            f"{place} has no split called train",
            why=f"splits found: {', '.join(loaded)}",
            fix="save the split that is meant: dataset['NAME'].save_to_disk(FOLDER)",
        )
    return loaded["train"] if "train" in loaded else next(iter(loaded.values()))


def _collect(
    dataset: Dataset, place: Path, layout: str, image_key: str | None, caption_key: str | None
) -> DatasetPairs:
    from datasets import Image as ImageFeature

    table = Table(list(dataset.column_names), [], layout)
    image_key, caption_key = choose_columns(table, place, place, image_key, caption_key)
    if isinstance(dataset.features[image_key], ImageFeature):
        dataset = dataset.cast_column(image_key, ImageFeature(decode=False))
    report = PairsReport(place, "datasets", image_key, caption_key, layout=layout)
    rows, captions = [], []
    for row, cell in enumerate(dataset[caption_key]):
        texts = [" ".join(cells["caption"].split()) for cells in spread({"caption": cell})]
        kept = list(dict.fromkeys(filter(None, texts)))
        report.n_rows += len(texts)
        report.n_pairs += len(kept)
        report.n_empty_captions += texts.count("")
        report.n_duplicates += len(texts) - texts.count("") - len(kept)
        if kept:
            rows.append(row)
            captions.append(kept)
    report.n_images = len(rows)
    if not rows:
        raise InputError(f"no usable row in {place}", why=report.summary())
    return DatasetPairs(dataset, rows, captions, report)
