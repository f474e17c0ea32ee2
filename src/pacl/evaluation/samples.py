"""Images to inspect: the best, the median and the worst image, beside their truth."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from PIL import Image

from pacl.datasets.segmentation.read_ahead import iter_read
from pacl.evaluation.predictor import Predictor
from pacl.evaluation.scoreboard import rank_images
from pacl.results.writers.overlay import draw_overlay
from pacl.runtime.files import write_atomically

_GAP_PX = 8
_PAPER = (250, 250, 248)


def draw_samples(
    predictor: Predictor, image_miou: Sequence[float], directory: Path, *, stem: str
) -> dict[str, dict[str, object]]:
    """Write one sheet each for the best, the median and the worst image: ours left, truth right.

    Args:
        predictor: Segments them again, without PAMR.
        image_miou: The mIoU of every image of the data set, in order.
        directory: Made where it does not exist.
        stem: Beginning of the file names, which end in _best.png and so on.

    Returns: per rank the image's name, its mIoU in [0, 1] and the file written.
    """
    dataset = predictor.task.dataset
    ranks = rank_images(image_miou)
    items = [dataset.items[k] for k in ranks.values()]
    described: dict[str, dict[str, object]] = {}
    batches = iter_read(dataset, [[item] for item in items], predictor.prepare)
    for (rank, k), examples in zip(ranks.items(), batches, strict=True):
        [[label_map]] = predictor.predict(examples, with_pamr=False)
        truth = np.where(examples[0].mask == dataset.ignore_label, -1, examples[0].mask)
        sheet = _beside(examples[0].image, label_map, truth, dataset.labels.names)
        buffer, path = io.BytesIO(), directory / f"{stem}_{rank}.png"
        sheet.save(buffer, format="PNG")
        write_atomically(path, buffer.getvalue())
        name = dataset.items[k].image_path.name
        described[rank] = {"image": name, "miou": image_miou[k], "file": str(path)}
    return described


def _beside(
    image: Image.Image,
    prediction: Int64[np.ndarray, "H W"],
    truth: Int64[np.ndarray, "H W"],
    labels: Sequence[str],
) -> Image.Image:
    """Two overlays, of class ids with -1 for none, next to each other."""
    left, right = (draw_overlay(image, each + 1, labels) for each in (prediction, truth))
    sheet = Image.new("RGB", (2 * image.width + _GAP_PX, image.height), _PAPER)
    sheet.paste(left, (0, 0))
    sheet.paste(right, (image.width + _GAP_PX, 0))
    return sheet
