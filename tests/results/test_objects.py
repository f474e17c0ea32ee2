"""Results as objects of other libraries, read with those libraries."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pacl.errors import EnvironmentProblem
from pacl.results import Segmentation

LABELS = ("Straße", "a, b", "car")


@pytest.fixture
def result() -> Segmentation:
    rng = np.random.default_rng(0)
    label_map = rng.integers(0, 3, (14, 18)).astype(np.int32)  # the third label is nowhere
    return Segmentation(
        image=Image.new("RGB", (18, 14)),
        labels=LABELS,
        label_map=label_map,
        scores=rng.random((14, 18), dtype=np.float32),
        class_scores=rng.random((3, 2, 2), dtype=np.float32),
        source="photos/a.png",
    )


def test_the_form_of_transformers_is_read_by_supervision(result: Segmentation) -> None:
    supervision = pytest.importorskip("supervision")
    form = result.to_dict()
    assert form["segmentation"].dtype == torch.int64
    assert form["segmentation_scores"].shape == (3, 14, 18)
    for k, label in enumerate(LABELS):
        assert np.allclose(form["segmentation_scores"][k], result.similarity(label))
    names = {-1: "none", **dict(enumerate(LABELS))}
    read: Any = supervision.Detections.from_transformers(form, id2label=names)
    back = np.zeros_like(result.label_map)
    for mask, class_id in zip(read.mask, read.class_id, strict=True):
        back[mask] = class_id + 1
    assert np.array_equal(back, result.label_map)


def test_supervision_holds_each_label_of_the_image(result: Segmentation) -> None:
    supervision = pytest.importorskip("supervision")
    found: Any = result.to_supervision()
    assert isinstance(found, supervision.Detections)
    assert found.class_id.tolist() == [0, 1]
    assert found.data["class_name"].tolist() == ["Straße", "a, b"]
    for mask, class_id, score, box in zip(
        found.mask, found.class_id, found.confidence, found.xyxy, strict=True
    ):
        assert np.array_equal(mask, result.label_map == class_id + 1)
        assert score == pytest.approx(result.scores[mask].mean(), abs=1e-6)
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]
    result.label_map[:] = 0
    assert len(result.to_supervision()) == 0


def test_coco_of_one_image_is_complete(result: Segmentation) -> None:
    content = result.to_coco()
    assert content["images"] == [{"id": 1, "file_name": "photos/a.png", "width": 18, "height": 14}]
    assert [each["name"] for each in content["categories"]] == list(LABELS)
    assert {each["image_id"] for each in content["annotations"]} == {1}
    assert sum(each["area"] for each in content["annotations"]) == (result.label_map > 0).sum()
    assert isinstance(result.to_coco(use_polygons=True)["annotations"][0]["segmentation"], list)


def test_fiftyone_gets_the_mask(result: Segmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", SimpleNamespace(Segmentation=dict))
    mask = result.to_fiftyone()["mask"]
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, result.label_map)


def test_a_missing_package_is_named(result: Segmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(EnvironmentProblem, match="pip install fiftyone"):
        result.to_fiftyone()


@pytest.mark.slow
def test_the_packages_are_not_imported_before() -> None:
    code = (
        "import sys, pacl.results, pacl.api\n"
        "names = 'supervision', 'fiftyone', 'cv2', 'av', 'pycocotools'\n"
        "print([name for name in names if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"
