"""What was scored with one model is not taken for another's, whatever was measured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark_copies import save_image, save_mask
from classification_copies import COPIES
from pacl.api import Model
from pacl.datasets.classification import open_classification
from pacl.evaluation.plan import Settings, open_segmentation
from pacl.evaluation.predictor import build_predictor
from pacl.evaluation.records import describe_subject
from pacl.evaluation.retrieval import open_retrieval
from pacl.evaluation.run import build_measurement
from pacl.evaluation.task import build_task
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.pacl import Pacl


def open_street(root: Path) -> Any:
    save_image(root / "street/images/a.png", (16, 16))
    save_mask(root / "street/masks/a.png", np.zeros((16, 16), np.uint8))
    return open_segmentation(
        "folder",
        root=root / "street",
        labels="sky,road",
        progress=lambda _: nullcontext(lambda *_: None),
    )


def open_textures(root: Path) -> Any:
    COPIES["dtd"](root)
    return open_classification("dtd", root=root)


def open_captions(root: Path) -> Any:
    save_image(root / "a.png", (16, 16))
    (root / "captions.csv").write_text("file_name,caption\na.png,a house\n")
    return open_retrieval(str(root / "captions.csv"))


@pytest.mark.parametrize("open_set", [open_street, open_textures, open_captions])
def test_keys_follow_every_part_of_a_model(
    open_set: Callable[[Path], Any], model: Model, tmp_path: Path
) -> None:
    opened = open_set(tmp_path)

    def keys(of: Model) -> tuple[str, ...]:
        subject = describe_subject(of, name="clip", embedder=None, engine="torch")
        return build_measurement(opened, of, subject, Settings()).scores.keys

    encoder = model.pacl.encoder
    torch.manual_seed(1)
    embedder = VisionEmbedder(encoder.width, encoder.joint_width)
    mine, other = keys(model), keys(Model(Pacl(encoder=encoder, embedder=embedder)))
    assert keys(model) == mine
    assert not {*mine} & {*other}, "neither the present key nor that of earlier versions"
    scaled = Model(Pacl(encoder=encoder, embedder=model.pacl.embedder, logit_scale=3.0))
    assert keys(scaled)[0] != mine[0]


def test_a_predictor_is_known_by_its_whole_model(model: Model, tmp_path: Path) -> None:
    task = build_task("street", open_street(tmp_path).dataset, preset=None)
    assert build_predictor(model, task).fingerprint == f"{model.fingerprint} {model.describe()}"
