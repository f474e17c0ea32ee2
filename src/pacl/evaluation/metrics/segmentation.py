"""How good a segmentation is: IoU, patch accuracy (method.md, section 5).

Label maps hold class ids 0..C-1. ``NO_CLASS`` (-1) in a prediction means "none of these"; in patch
labels it means that the patch holds no labelled pixel.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

LabelMap: TypeAlias = Integer[Tensor, "height width"] | Integer[np.ndarray, "height width"]

NO_CLASS = -1
VOID = 255  # the id that benchmarks write where nobody labelled


class ConfusionMatrix:
    """Pixel counts of one data set: truth against prediction, and the scores read off them.

    Args:
        n_classes: C; classes are 0..C-1.
        ignore_label: Truth ids left out of everything, besides 255 (which is itself a class only
            where C > 255). An ignored id below C is no class: its IoU is nan.

    Raises:
        ValueError: `n_classes` is below 1.

    The scores are those of the data set, one matrix over all images; a mean of per-image scores
    is another, higher number.
    """

    def __init__(self, n_classes: int, *, ignore_label: int | Collection[int] = VOID) -> None:
        if n_classes < 1:
            raise ValueError(f"n_classes must be at least 1, got {n_classes}")
        self.n_classes = n_classes
        self.ignored_ids = _ignored_ids(n_classes, ignore_label)
        # The last column counts NO_CLASS: wrong for its true class, in no class's prediction.
        self._table = torch.zeros(n_classes, n_classes + 1, dtype=torch.int64)

    @property
    def counts(self) -> Int[Tensor, "classes classes"]:
        """Pixels by true class (rows) and predicted class (columns), int64; none of -1."""
        return self._table[:, :-1].clone()

    @property
    def table(self) -> Int[Tensor, "classes columns"]:
        """All that is counted: counts with one more column, for predictions of NO_CLASS."""
        return self._table.clone()

    def add_table(self, table: Int[Tensor, "classes columns"]) -> None:
        """Add what another matrix of the same classes and ignored ids gave as its table."""
        if table.shape != self._table.shape:
            raise ValueError(f"table must be {tuple(self._table.shape)}, got {tuple(table.shape)}")
        self._table += table

    def update(self, prediction: LabelMap, target: LabelMap) -> None:
        """Add one image, at the resolution of its truth.

        Args:
            prediction: (H, W) class ids, or -1 for "none of these", which is wrong wherever the
                truth is a class.
            target: (H, W) class ids or ignored ids.

        Raises:
            ValueError: The shapes differ, a map holds no whole numbers, or an id that counts is
                out of range.
        """
        predicted, true = _as_numpy("prediction", prediction), _as_numpy("target", target)
        if predicted.shape != true.shape:
            raise ValueError(
                f"prediction must have the shape of target, {true.shape}, got {predicted.shape}"
            )
        if true.size == 0:
            return
        # Whole maps through look-up tables: picking out the scored pixels would cost far more.
        lowest, highest = int(true.min()), int(true.max())
        start_of_row = self._start_of_row(lowest, highest)
        is_ok = int(predicted.min()) >= NO_CLASS and int(predicted.max()) < self.n_classes
        if not is_ok or (start_of_row < 0).any():
            predicted = self._check(predicted, true)
        column = np.arange(self.n_classes + 1)  # of NO_CLASS, -1, the last
        cells = start_of_row[true - lowest] + column[predicted]
        n_cells = self._table.numel()
        counts = np.bincount(cells.ravel(), minlength=n_cells)[:n_cells]
        self._table += torch.from_numpy(counts).view_as(self._table)

    def _start_of_row(self, lowest: int, highest: int) -> np.ndarray:
        """First cell of each truth id's row; beyond the table if ignored, -1 if it is no class."""
        ids = np.arange(lowest, highest + 1)
        is_class = (ids >= 0) & (ids < self.n_classes)
        start = np.where(is_class, ids * (self.n_classes + 1), -1)
        start[np.isin(ids, list(self.ignored_ids))] = self._table.numel()
        return start

    def _check(self, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
        """Refuse ids out of range at scored pixels; predictions at the others become NO_CLASS."""
        is_scored = ~np.isin(true, list(self.ignored_ids))
        for name, ids, lowest in (("target", true, 0), ("prediction", predicted, NO_CLASS)):
            scored = torch.from_numpy(ids[is_scored].astype(np.int64))
            _check_range(name, scored, lowest=lowest, n_classes=self.n_classes)
        return np.where(is_scored, predicted, NO_CLASS)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another matrix, of other images.

        Raises:
            ValueError: `other` has other classes or other ignored ids.
        """
        mine, theirs = (self.n_classes, self.ignored_ids), (other.n_classes, other.ignored_ids)
        if mine != theirs:
            raise ValueError(f"other counts {theirs} (classes, ignored ids), this one {mine}")
        self._table += other._table

    def iou(self) -> Float[Tensor, " classes"]:
        """Intersection over union of each class, (C,) float64 in [0, 1].

        Returns:
            NaN for a class absent from truth and prediction alike, and for an ignored one.
        """
        hits, n_predicted = self._hits(), self._table[:, :-1].sum(dim=0)
        union = self._table.sum(dim=1) + n_predicted - hits
        is_ignored = _is_in(torch.arange(self.n_classes), self.ignored_ids)
        return (hits.double() / union).masked_fill(is_ignored, torch.nan)  # 0 / 0 is nan too

    def n_true(self) -> Int[Tensor, " classes"]:
        """Scored pixels of each class in the truth."""
        return self._table.sum(dim=1)

    def n_false(self) -> Int[Tensor, " classes"]:
        """Scored pixels that are predicted as each class and are of another."""
        return self._table[:, :-1].sum(dim=0) - self._hits()

    def mean_iou(self) -> float:
        """Mean of iou() over the classes that have one, in [0, 1]; nan where none has."""
        return self.iou().nanmean().item()

    def pixel_accuracy(self) -> float:
        """Share of scored pixels that are right, in [0, 1]; nan where no pixel is scored."""
        return (self._hits().sum().double() / self._table.sum()).item()

    def mean_accuracy(self) -> float:
        """Mean over the classes present in the truth of their share of right pixels, in [0, 1]."""
        return (self._hits().double() / self._table.sum(dim=1)).nanmean().item()

    def _hits(self) -> Tensor:
        return self._table[:, :-1].diagonal()


def patch_labels(
    mask: LabelMap,
    grid: tuple[int, int],
    *,
    n_classes: int,
    ignore_label: int | Collection[int] = VOID,
) -> Int[Tensor, "rows columns"]:
    """Label of each patch: the class that most of its labelled pixels have (method.md, section 5).

    Args:
        mask: (H, W) class ids or ignored ids.
        grid: (rows, columns) of the patches, which share out the whole mask evenly. A pixel
            belongs to the patch that holds its centre, so H and W need not be multiples.
        n_classes: C.
        ignore_label: As in ConfusionMatrix: left out, besides 255.

    Returns:
        (rows, columns) int64 in 0..C-1, or -1 where no pixel is labelled. A tie goes to the lower
        id.

    Raises:
        ValueError: `grid` is not positive, or `mask` holds no matrix of ids in range.
    """
    rows, columns = grid
    if rows < 1 or columns < 1:
        raise ValueError(f"grid must be at least (1, 1), got {grid}")
    ids = _as_ids("mask", mask)
    ignored_ids = _ignored_ids(n_classes, ignore_label)
    row = _cell_of_pixel(ids.shape[0], rows)
    column = _cell_of_pixel(ids.shape[1], columns)
    patch = row[:, None] * columns + column
    is_labelled = ~_is_in(ids, ignored_ids)
    ids, patch = ids[is_labelled], patch[is_labelled]
    _check_range("mask", ids, lowest=0, n_classes=n_classes)
    votes = torch.bincount(patch * n_classes + ids, minlength=rows * columns * n_classes)
    votes = votes.view(rows, columns, n_classes)
    return votes.argmax(dim=-1).where(votes.sum(dim=-1) > 0, NO_CLASS)


class PatchAccuracy:
    """Share of patches whose class of highest cosine is their label (method.md, section 5).

    Kept for two sets of candidates: all classes, and only the classes that label at least one
    patch of the same image. The second is easier; the two are not comparable.
    """

    def __init__(self) -> None:
        self.n_patches = 0
        self.n_right_all = 0
        self.n_right_present = 0

    def update(
        self, similarity: Float[Tensor, "classes patches"], labels: Integer[Tensor, " patches"]
    ) -> None:
        """Add one image.

        Args:
            similarity: (C, T) cosine of each patch with each class.
            labels: (T,) class ids, or -1 for a patch that does not count (see patch_labels).

        Raises:
            ValueError: The shapes do not fit, or a label is out of range.
        """
        if similarity.ndim != 2 or labels.shape != similarity.shape[1:]:
            raise ValueError(
                f"labels must have shape (T,) for similarity (C, T), "
                f"got {tuple(labels.shape)} for {tuple(similarity.shape)}"
            )
        _check_range("labels", labels, lowest=NO_CLASS, n_classes=len(similarity))
        labels = labels.to(similarity.device, torch.int64)
        is_labelled = labels != NO_CLASS
        similarity, labels = similarity[:, is_labelled], labels[is_labelled]
        if labels.numel() == 0:
            return
        present = labels.unique()
        self.n_patches += labels.numel()
        self.n_right_all += int((similarity.argmax(dim=0) == labels).sum())
        self.n_right_present += int((present[similarity[present].argmax(dim=0)] == labels).sum())

    def over_all(self) -> float:
        """Accuracy with every class a candidate, in [0, 1]; nan before the first patch."""
        return self.n_right_all / self.n_patches if self.n_patches else float("nan")

    def over_present(self) -> float:
        """Accuracy among the classes present in the image, in [0, 1]; nan before the first."""
        return self.n_right_present / self.n_patches if self.n_patches else float("nan")


def _cell_of_pixel(n_pixels: int, n_cells: int) -> Tensor:
    """Cell of each pixel's centre where n_cells share out n_pixels, in whole numbers."""
    return (2 * torch.arange(n_pixels) + 1) * n_cells // (2 * n_pixels)


def _as_ids(name: str, label_map: LabelMap) -> Tensor:
    """The label map as int64 on the CPU, where the counts are."""
    return torch.from_numpy(_as_numpy(name, label_map).astype(np.int64))


def _as_numpy(name: str, label_map: LabelMap) -> np.ndarray:
    """The label map as it is, on the CPU; signed, so that ids can be subtracted."""
    ids = label_map.detach().cpu().numpy() if isinstance(label_map, Tensor) else label_map
    if ids.dtype.kind not in "iu" or ids.ndim != 2:
        raise ValueError(f"{name} must hold whole numbers (H, W), got {ids.dtype} {ids.shape}")
    return ids.astype(np.int64) if ids.dtype.kind == "u" else ids


def _ignored_ids(n_classes: int, ignore_label: int | Collection[int]) -> frozenset[int]:
    given = {ignore_label} if isinstance(ignore_label, int) else set(ignore_label)
    return frozenset(given | {VOID} if n_classes <= VOID else given)


def _is_in(ids: Tensor, labels: frozenset[int]) -> Tensor:
    return torch.isin(ids, torch.tensor(sorted(labels), dtype=ids.dtype))


def _check_range(name: str, ids: Tensor, *, lowest: int, n_classes: int) -> None:
    wrong = ids[(ids < lowest) | (ids >= n_classes)]
    if wrong.numel():
        raise ValueError(
            f"{name} holds {wrong[0].item()}, which is outside {lowest}..{n_classes - 1}"
        )
