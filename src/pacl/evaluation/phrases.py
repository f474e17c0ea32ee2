"""Scoring phrases: IoU of things asked for by more than the name of their class."""

from __future__ import annotations

from collections.abc import Sequence

from pacl.api import Model
from pacl.data.images import open_image
from pacl.datasets.segmentation.masks import MaskDataset, MaskItem
from pacl.evaluation.metrics.segmentation import ConfusionMatrix
from pacl.evaluation.predictor import iter_batches
from pacl.inference.config import SegmentConfig


def evaluate_phrases(
    model: Model,
    dataset: MaskDataset,
    labels: Sequence[str],
    phrases: Sequence[str],
    *,
    config: SegmentConfig | None = None,
) -> dict[str, float]:
    """IoU of things that are asked for by a phrase ("a purple boat") in place of their class.

    Args:
        model: Any CLIP, with an embedder or as a training-free baseline.
        dataset: Images and masks.
        labels: Per image, the class the phrase stands for; the other classes keep their names.
        phrases: Per image, the phrase.
        config: As in `evaluate_folder`.

    Returns:
        Per class that was asked for, the IoU over all its images, in [0, 1].
    """
    config = config or SegmentConfig()
    matrices = {label: ConfusionMatrix(len(dataset.labels), ignore_label=dataset.ignore_label)
                for label in dict.fromkeys(labels)}  # fmt: skip
    rows_of: dict[tuple[str, str], list[MaskItem]] = {}
    for item, label, phrase in zip(dataset.items, labels, phrases, strict=True):
        rows_of.setdefault((label, phrase), []).append(item)
    for (label, phrase), all_items in rows_of.items():
        words = {name: phrase if name == label else name for name in dataset.labels.names}
        for items in iter_batches(all_items, config.batch_size):
            images = [open_image(item.image_path) for item in items]
            results = model.segment_batch(images, words, config=config)
            for item, result in zip(items, results, strict=True):
                matrices[label].update(result.label_map - 1, dataset.read_mask(item))
    names = dataset.labels.names
    return {label: matrix.iou()[names.index(label)].item() for label, matrix in matrices.items()}
