from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacl.datasets.segmentation.folder import FolderDataset
from pacl.datasets.segmentation.read_ahead import iter_read
from pacl.errors import InputError


@pytest.fixture
def dataset(tmp_path: Path) -> FolderDataset:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for k in range(7):
        Image.new("RGB", (k + 1, 2)).save(tmp_path / "images" / f"{k}.png")
        Image.fromarray(np.full((2, k + 1), k % 2, np.uint8)).save(tmp_path / "masks" / f"{k}.png")
    return FolderDataset(tmp_path, labels="a,b")


def test_order_masks_and_what_is_prepared(dataset: FolderDataset) -> None:
    batches = [dataset.items[:3], dataset.items[3:4], dataset.items[4:]]
    read = list(iter_read(dataset, batches, lambda image: image.width * 10))
    assert [len(batch) for batch in read] == [3, 1, 3]
    flat = [example for batch in read for example in batch]
    assert [example.image.width for example in flat] == [1, 2, 3, 4, 5, 6, 7]
    assert [example.prepared for example in flat] == [10, 20, 30, 40, 50, 60, 70]
    assert [int(example.mask[0, 0]) for example in flat] == [0, 1, 0, 1, 0, 1, 0]
    assert set(flat[0].seconds) == {"reading", "preprocessing"}
    assert list(iter_read(dataset, [], lambda _: None)) == []


def test_two_batches_are_held(dataset: FolderDataset) -> None:
    asked = []

    def batches():
        for item in dataset.items:
            asked.append(item)
            yield [item]

    reading = iter_read(dataset, batches(), lambda _: None)
    next(reading)
    assert len(asked) == 2
    next(reading)
    assert len(asked) == 3
    reading.close()


def test_an_error_comes_with_its_batch(dataset: FolderDataset) -> None:
    dataset.items[1].image_path.write_bytes(b"no picture")
    reading = iter_read(dataset, [[item] for item in dataset.items], lambda _: None)
    assert len(next(reading)) == 1
    with pytest.raises(InputError, match="is not an image"):
        next(reading)
