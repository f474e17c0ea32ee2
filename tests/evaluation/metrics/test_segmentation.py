"""The scores against brute force: sets of pixels, patches one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import references
from pacl.evaluation.metrics.segmentation import ConfusionMatrix, PatchAccuracy, patch_labels


def draw_maps(seed: int, n_classes: int, n_images: int = 3) -> tuple[list[Tensor], list[Tensor]]:
    """Predictions (some "none of these") and truths (some void), each image of its own size."""
    generator = torch.Generator().manual_seed(seed)
    predictions, targets = [], []
    for _ in range(n_images):
        size = tuple(torch.randint(1, 7, (2,), generator=generator).tolist())
        predictions.append(torch.randint(-1, n_classes, size, generator=generator))
        target = torch.randint(0, n_classes, size, generator=generator)
        is_void = torch.rand(size, generator=generator) < 0.2
        targets.append(target.masked_fill(is_void, 255))
    return predictions, targets


def count(predictions: list[Tensor], targets: list[Tensor], n_classes: int, **options):
    matrix = ConfusionMatrix(n_classes, **options)
    for prediction, target in zip(predictions, targets, strict=True):
        matrix.update(prediction, target)
    return matrix


def assert_iou(matrix: ConfusionMatrix, expected: list[float]) -> None:
    torch.testing.assert_close(
        matrix.iou(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0, equal_nan=True
    )
    there = [value for value in expected if not math.isnan(value)]
    if there:
        assert matrix.mean_iou() == pytest.approx(sum(there) / len(there), abs=1e-15)
    else:
        assert math.isnan(matrix.mean_iou())


# --- the confusion matrix ---------------------------------------------------------------------


@given(seed=st.integers(0, 1000), n_classes=st.integers(1, 9))
def test_iou_of_pixel_sets(seed: int, n_classes: int) -> None:
    predictions, targets = draw_maps(seed, n_classes)
    matrix = count(predictions, targets, n_classes)
    assert_iou(matrix, references.iou(predictions, targets, n_classes, {255}))


@pytest.mark.parametrize("ignored", [0, 2, [0, 3], [77]], ids=str)
def test_the_given_ids_are_ignored_besides_255(ignored: int | list[int]) -> None:
    predictions, targets = draw_maps(0, 4)
    targets[0][0, 0] = 77 if ignored == [77] else 1
    matrix = count(predictions, targets, 4, ignore_label=ignored)
    ids = {255, ignored} if isinstance(ignored, int) else {255, *ignored}
    assert_iou(matrix, references.iou(predictions, targets, 4, ids))


def test_ignored_pixels_change_nothing() -> None:
    target = torch.tensor([[0, 1, 255, 11]])
    matrix = count([torch.tensor([[0, 0, 1, 1]])], [target], 2, ignore_label=11)
    other = count([torch.tensor([[0, 0, 0, -1]])], [target], 2, ignore_label=11)
    assert torch.equal(matrix.counts, other.counts)
    assert matrix.counts.tolist() == [[1, 0], [1, 0]]
    assert matrix.pixel_accuracy() == 0.5


def test_255_is_a_class_where_there_are_so_many() -> None:
    target = torch.tensor([[255, 300, 7]])
    matrix = count([target], [target], 847, ignore_label=7)
    assert matrix.counts.sum() == 2
    assert matrix.iou()[255] == 1


def test_counts_are_true_class_by_predicted_class() -> None:
    matrix = count([torch.tensor([[1, 1, 2]])], [torch.tensor([[0, 1, 1]])], 3)
    assert matrix.counts.tolist() == [[0, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert matrix.counts.dtype == torch.int64
    matrix.counts.zero_()
    assert matrix.counts.sum() == 3


def test_an_absent_class_is_skipped() -> None:
    matrix = count([torch.tensor([[0, 0, 1, 1]])], [torch.tensor([[0, 0, 0, 1]])], 4)
    assert_iou(matrix, [2 / 3, 1 / 2, math.nan, math.nan])
    assert matrix.mean_accuracy() == pytest.approx((2 / 3 + 1) / 2)


def test_a_class_only_predicted_counts_as_zero() -> None:
    matrix = count([torch.tensor([[0, 2]])], [torch.tensor([[0, 0]])], 3)
    assert_iou(matrix, [0.5, math.nan, 0.0])
    assert matrix.mean_accuracy() == 0.5


def test_none_of_these_is_wrong_but_no_class() -> None:
    matrix = count([torch.tensor([[-1, 0, -1, -1]])], [torch.tensor([[0, 0, 1, 255]])], 3)
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert_iou(matrix, [0.5, 0.0, math.nan])
    assert matrix.pixel_accuracy() == pytest.approx(1 / 3)
    assert matrix.mean_accuracy() == pytest.approx(0.25)


def test_an_image_that_is_all_ignored_changes_nothing() -> None:
    void = torch.full((3, 4), 255)
    matrix = count([torch.zeros_like(void)], [void], 2)
    assert_iou(matrix, [math.nan, math.nan])
    assert math.isnan(matrix.pixel_accuracy())
    assert math.isnan(matrix.mean_accuracy())

    predictions, targets = draw_maps(1, 2)
    before = count(predictions, targets, 2)
    after = count([*predictions, torch.zeros_like(void)], [*targets, void], 2)
    assert torch.equal(before.counts, after.counts)


@given(seed=st.integers(0, 100), cut=st.integers(0, 4))
def test_a_split_data_set_is_one_data_set(seed: int, cut: int) -> None:
    predictions, targets = draw_maps(seed, 5, n_images=4)
    whole = count(predictions, targets, 5)
    first, second = count(predictions[:cut], targets[:cut], 5), count([], [], 5)
    for prediction, target in zip(predictions[cut:], targets[cut:], strict=True):
        for row in range(len(target)):  # in strips, too
            second.update(prediction[row : row + 1], target[row : row + 1])
    first.merge(second)
    assert torch.equal(first.counts, whole.counts)
    torch.testing.assert_close(first.iou(), whole.iou(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_arrays_and_tensors_of_any_whole_type(dtype: type) -> None:
    target = np.array([[0, 1], [1, 255]], dtype=dtype)
    target.flags.writeable = False  # as Pillow hands it out
    prediction = np.array([[0, 1], [0, 0]], dtype=dtype)
    from_arrays, from_tensors = ConfusionMatrix(2), ConfusionMatrix(2)
    from_arrays.update(prediction, target)
    from_tensors.update(torch.from_numpy(prediction), torch.from_numpy(target.copy()))
    assert from_arrays.counts.tolist() == from_tensors.counts.tolist() == [[1, 0], [1, 1]]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (torch.zeros(2, 3).int(), torch.zeros(3, 2).int(), "prediction must have the shape of"),
        (torch.zeros(2, 3), torch.zeros(2, 3).int(), "prediction must hold whole numbers"),
        (torch.zeros(2, 3).int(), torch.zeros(2, 3).bool(), "target must hold whole numbers"),
        (torch.zeros(4).int(), torch.zeros(4).int(), "prediction must hold whole numbers"),
        (torch.zeros(1, 1).int(), torch.tensor([[3]]), r"target holds 3, .* outside 0\.\.2"),
        (torch.zeros(1, 1).int(), torch.tensor([[-1]]), r"target holds -1, .* outside 0\.\.2"),
        (torch.tensor([[3]]), torch.zeros(1, 1).int(), r"prediction holds 3, .* outside -1\.\.2"),
        (torch.tensor([[-2]]), torch.zeros(1, 1).int(), "prediction holds -2"),
    ],
)
def test_wrong_maps_are_named_and_leave_the_counts(
    prediction: Tensor, target: Tensor, message: str
) -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=message):
        matrix.update(prediction, target)
    assert matrix.counts.sum() == 0


def test_matrices_of_different_classes_do_not_merge() -> None:
    with pytest.raises(ValueError, match="other counts"):
        ConfusionMatrix(3).merge(ConfusionMatrix(4))
    with pytest.raises(ValueError, match="other counts"):
        ConfusionMatrix(3).merge(ConfusionMatrix(3, ignore_label=0))
    with pytest.raises(ValueError, match="n_classes"):
        ConfusionMatrix(0)


# --- patches ----------------------------------------------------------------------------------


def test_a_patch_takes_the_label_of_most_of_its_pixels() -> None:
    mask = torch.tensor(
        [
            [0, 0, 1, 2],
            [0, 1, 2, 2],
            [255, 255, 7, 255],
            [255, 255, 255, 1],
        ]
    )
    labels = patch_labels(mask, (2, 2), n_classes=3, ignore_label=7)
    assert labels.tolist() == [[0, 2], [-1, 1]]


def test_a_tie_goes_to_the_lower_id() -> None:
    assert patch_labels(torch.tensor([[2, 1]]), (1, 1), n_classes=3).item() == 1


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    seed=st.integers(0, 100),
)
def test_patch_labels_on_any_grid(
    height: int, width: int, rows: int, columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, 4, (height, width), generator=generator)
    mask[mask == 3] = 255
    labels = patch_labels(mask.numpy().astype(np.uint8), (rows, columns), n_classes=3)
    for row in range(rows):
        for column in range(columns):
            votes = [0, 0, 0]
            for y in range(height):
                for x in range(width):
                    holds_y = row * height <= (y + 0.5) * rows < (row + 1) * height
                    holds_x = column * width <= (x + 0.5) * columns < (column + 1) * width
                    if holds_y and holds_x and mask[y, x] != 255:
                        votes[mask[y, x]] += 1
            expected = votes.index(max(votes)) if any(votes) else -1
            assert labels[row, column] == expected


def test_wrong_patch_grids_and_masks_are_named() -> None:
    mask = torch.zeros(4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="grid"):
        patch_labels(mask, (0, 2), n_classes=2)
    with pytest.raises(ValueError, match="mask holds 2"):
        patch_labels(mask + 2, (2, 2), n_classes=2)


def test_patch_accuracy_over_all_and_over_present_classes() -> None:
    similarity = torch.tensor(
        [
            [0.9, 0.1, 0.1, 0.9],  # class 0: patch 0 right
            [0.1, 0.3, 0.8, 0.9],  # class 1: patch 1 is right only without class 2
            [0.2, 0.5, 0.1, 0.9],  # class 2: absent
        ]
    )
    accuracy = PatchAccuracy()
    accuracy.update(similarity, torch.tensor([0, 1, 0, -1]))
    assert accuracy.over_all() == pytest.approx(1 / 3)
    assert accuracy.over_present() == pytest.approx(2 / 3)
    assert accuracy.n_patches == 3

    accuracy.update(similarity[:, :1], torch.tensor([2]))  # the only candidate is right
    assert accuracy.over_all() == pytest.approx(1 / 4)
    assert accuracy.over_present() == pytest.approx(3 / 4)


@given(seed=st.integers(0, 300), n_classes=st.integers(1, 6))
def test_patch_accuracy_patch_by_patch(seed: int, n_classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    accuracy = PatchAccuracy()
    right_all = right_present = n_patches = 0
    for _ in range(3):
        similarity = torch.rand(n_classes, 8, generator=generator)
        labels = torch.randint(-1, n_classes, (8,), generator=generator)
        accuracy.update(similarity, labels)
        present = sorted(set(labels.tolist()) - {-1})
        for t, label in enumerate(labels.tolist()):
            if label != -1:
                n_patches += 1
                right_all += label == max(range(n_classes), key=lambda c: similarity[c, t].item())
                right_present += label == max(present, key=lambda c: similarity[c, t].item())
    assert accuracy.n_patches == n_patches
    assert accuracy.over_all() == pytest.approx(right_all / n_patches)
    assert accuracy.over_present() == pytest.approx(right_present / n_patches)


def test_no_labelled_patch_has_no_accuracy() -> None:
    accuracy = PatchAccuracy()
    accuracy.update(torch.rand(3, 2), torch.tensor([-1, -1]))
    assert math.isnan(accuracy.over_all())
    assert math.isnan(accuracy.over_present())


@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_patch_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="labels must have shape"):
        PatchAccuracy().update(torch.rand(3, 2), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="labels holds 3"):
        PatchAccuracy().update(torch.rand(3, 2), torch.tensor([0, 3]))
