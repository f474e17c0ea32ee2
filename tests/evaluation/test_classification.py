"""Zero-shot classification of a set: three rows in one pass, and going on after an interrupt."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pacl.api import Model
from pacl.datasets.classification.dataset import ClassificationData, Images, PackedPixels, Split
from pacl.evaluation.classification import ROWS, ClassificationScores, evaluate_set
from pacl.evaluation.fusion import FusionWeight
from pacl.inference.classifier import class_probabilities
from pacl.text.labels import Labels

TEMPLATES = ("a photo of a {}.",)
LABELS = Labels(
    names=("house", "boat", "tree", "car", "dog", "snow"),
    prompts=(("house",), ("boat", "sea"), ("tree",), ("car",), ("dog",), ("snow",)),
)


def _split(n_images: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n_images, 3, 32, 32), dtype=np.uint8)
    return Split(PackedPixels(pixels), np.arange(n_images) % 6)


@pytest.fixture
def data() -> ClassificationData:
    return ClassificationData(LABELS, test=_split(13, 0), train=_split(9, 1))


@pytest.mark.parametrize("score", ["clip", "pacl"])
def test_rows_equal_picture_by_picture(score: str, model: Model, data: ClassificationData) -> None:
    report = evaluate_set(model, data, templates=TEMPLATES, batch_size=4)
    vocabulary = Model(model.pacl, templates=TEMPLATES).vocabulary(LABELS)
    right, among_5 = [], []
    for k in range(13):
        image = model.pacl.encoder.prepare(data.test.images.open(k))[None]
        found = class_probabilities(model.pacl, image, vocabulary, score=score)[0]
        order = found.argsort(descending=True).tolist()
        right.append(order[0] == k % 6)
        among_5.append(k % 6 in order[:5])
    row = report.rows[score]
    assert row.top1 == sum(right) / 13
    assert row.top5 == sum(among_5) / 13
    of_class = [np.mean(right[k::6]) for k in range(6)]
    assert row.per_class == pytest.approx(of_class)
    assert row.mean_per_class == pytest.approx(np.mean(of_class))
    assert report.n_images == 13


def test_the_weight_comes_from_training_pictures_only(
    model: Model, data: ClassificationData
) -> None:
    report = evaluate_set(model, data, templates=TEMPLATES)
    assert report.fusion is not None
    assert report.fusion.n_images == 9
    other_test = replace(data, test=_split(13, 5))
    assert evaluate_set(model, other_test, templates=TEMPLATES).fusion == report.fusion
    as_test = replace(data, test=data.train)
    share = evaluate_set(model, as_test, templates=TEMPLATES)
    assert share.fusion is not None
    assert share.rows["fusion"].top1 == share.fusion.top1
    assert share.rows["fusion"].top1 >= max(share.rows[s].top1 for s in ("clip", "pacl"))


def test_without_training_pictures_the_weight_is_one_half(
    model: Model, data: ClassificationData
) -> None:
    for alone in (
        evaluate_set(model, replace(data, train=None), templates=TEMPLATES),
        evaluate_set(model, data, templates=TEMPLATES, n_to_choose_on=0),
    ):
        assert alone.fusion == FusionWeight(0.5, n_images=0, top1=None)


def test_resumes_where_it_stopped(model: Model, data: ClassificationData) -> None:
    whole = evaluate_set(model, data, templates=TEMPLATES, batch_size=5)
    begun = ClassificationScores(model, data, templates=TEMPLATES, batch_size=5)
    for _ in begun.iter_scored():
        if begun.n_done == 10:
            break
    opened: list[int] = []
    watched = replace(data, test=Split(_Watched(data.test.images, opened), data.test.targets))
    rest = ClassificationScores(model, watched, templates=TEMPLATES, batch_size=5)
    rest.restore(begun.state())
    assert rest.n_done == 10
    assert list(rest.iter_scored()) == [f"top-1 {whole.rows['pacl'].top1:.1%}"]
    assert opened == [10, 11, 12]
    assert rest.report() == whole


def test_resumes_before_the_weight_is_chosen(model: Model, data: ClassificationData) -> None:
    begun = ClassificationScores(model, data, templates=TEMPLATES, batch_size=5)
    assert next(begun.iter_scored()) == "5 of 9 training images"
    rest = ClassificationScores(model, data, templates=TEMPLATES, batch_size=5)
    rest.restore(begun.state())
    for _ in rest.iter_scored():
        pass
    assert rest.report() == evaluate_set(model, data, templates=TEMPLATES, batch_size=5)


def test_json_has_no_nan(model: Model, data: ClassificationData) -> None:
    few = Labels(names=LABELS.names[:3], prompts=LABELS.prompts[:3])
    small = ClassificationData(few, Split(data.test.images, np.arange(13) % 2), train=None)
    content = evaluate_set(model, small, templates=TEMPLATES).to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert list(content["rows"]) == list(ROWS)
    assert content["rows"]["clip"]["top5"] is None
    assert content["rows"]["clip"]["per_class"]["tree"] is None


class _Watched:
    """Images that note which of them were opened."""

    def __init__(self, images: Images, opened: list[int]) -> None:
        self._pictures = images
        self._opened = opened

    def __len__(self) -> int:
        return len(self._pictures)

    def open(self, index: int):  # type: ignore[no-untyped-def]
        self._opened.append(index)
        return self._pictures.open(index)
