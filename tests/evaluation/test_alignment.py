"""Alignment against a brute force over images and patches, before and after the embedder."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import references
from pacl.api import Model
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.errors import InputError
from pacl.evaluation.alignment import Estimate, measure_alignment, measure_patch_accuracy
from pacl.evaluation.metrics.segmentation import NO_CLASS, patch_labels
from pacl.evaluation.tables import alignment_table
from pacl.modeling.pacl import Pacl

LABELS = ("house", "boat", "snow")


@pytest.fixture
def dataset(tmp_path: Path) -> FolderDataset:
    """Five pictures in squares of three classes; one has no labelled pixel."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number in range(5):
        image = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
        mask = rng.integers(0, 3, (4, 5), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        mask[:8] = 255
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(mask if number != 3 else mask * 0 + 255).save(
            tmp_path / "masks" / f"{number}.png"
        )
    return FolderDataset(tmp_path, labels=LABELS)


def _brute_force(model: Model, dataset: FolderDataset, kind: str) -> dict[str, float]:
    """Patch by patch, pair by pair."""
    pacl, vocabulary = model.pacl, model.vocabulary(dataset.labels)
    right_all, right_present, vectors, classes = [], [], [], []
    for item in dataset:
        with Image.open(item.image_path) as image, torch.inference_mode():
            pixels = pacl.encoder.prepare(image, size_px=(32, 40))[None]
            tokens, grid = pacl.encoder.encode_patches(
                pixels, kind=pacl.token_kind, layer=pacl.token_layer
            )
            embeds = pacl.embed_tokens(tokens)[0]
            joint = pacl.encoder.project_patches(tokens)[0] if kind == "frozen" else embeds
        mask = torch.from_numpy(dataset.read_mask(item))
        labels = patch_labels(mask, grid, n_classes=3).flatten().tolist()
        present = sorted(set(labels) - {NO_CLASS})
        for k, label in enumerate(labels):
            if label == NO_CLASS:
                continue
            cosines = [references.cosine(joint[k], u).item() for u in vocabulary.text_embeds]
            right_all.append(max(range(3), key=lambda c: cosines[c]) == label)
            right_present.append(max(present, key=lambda c: cosines[c]) == label)
            vectors.append((tokens[0] if kind == "frozen" else embeds)[k].double())
            classes.append(label)
    pairs = [(a, b) for a in range(len(vectors)) for b in range(a)]
    scores = [functional.cosine_similarity(vectors[a], vectors[b], dim=0).item() for a, b in pairs]
    return {
        "all": float(np.mean(right_all)),
        "present": float(np.mean(right_present)),
        "auroc": references.auroc(scores, [classes[a] == classes[b] for a, b in pairs]),
        "n_patches": len(classes),
    }


@pytest.mark.parametrize("kind", ["frozen", "embedded"])
def test_equals_brute_force(kind: str, model: Model, dataset: FolderDataset) -> None:
    report = measure_alignment(model, dataset, n_pairs=10**6)
    expected = _brute_force(model, dataset, kind)
    found = getattr(report, kind)
    assert report.n_patches == expected["n_patches"] == 60
    assert report.n_images == 5
    assert found.patch_accuracy_all.value == expected["all"]
    assert found.patch_accuracy_present.value == expected["present"]
    assert found.coherence_auroc.value == pytest.approx(expected["auroc"], abs=1e-3)
    assert found.roc["fpr"][0] == 0
    assert found.roc["tpr"][-1] == 1
    assert len(found.roc["fpr"]) <= 200
    assert math.isnan(found.coherence_auroc.low)


def test_the_embedded_accuracy_is_that_of_the_scorer(model: Model, dataset: FolderDataset) -> None:
    vocabulary = model.vocabulary(dataset.labels)
    accuracy = measure_patch_accuracy(
        model.scorer(vocabulary),
        dataset,
        encoder=model.pacl.encoder,
        class_of_name=vocabulary.class_of_name,
    )
    report = measure_alignment(model, dataset)
    assert report.embedded.patch_accuracy_all.value == accuracy.over_all()
    assert report.embedded.patch_accuracy_present.value == accuracy.over_present()
    assert report.frozen != report.embedded


def test_without_an_embedder_the_classes_are_the_same(model: Model, dataset: FolderDataset) -> None:
    report = measure_alignment(Model(Pacl(encoder=model.pacl.encoder, embedder=None)), dataset)
    for name in ("patch_accuracy_all", "patch_accuracy_present"):
        assert getattr(report.frozen, name).value == getattr(report.embedded, name).value


def test_before_training_stands_clips_own_last_block(model: Model, dataset: FolderDataset) -> None:
    encoder, embedder = model.pacl.encoder, model.pacl.embedder
    own = measure_alignment(Model(Pacl(encoder=encoder, embedder=None)), dataset)
    for other in (
        Pacl(encoder=encoder, embedder=embedder, token_layer=-2),
        Pacl(encoder=encoder, embedder=embedder, token_kind="maskclip"),
    ):
        report = measure_alignment(Model(other), dataset)
        for name in ("patch_accuracy_all", "patch_accuracy_present"):
            assert getattr(report.frozen, name).value == getattr(own.frozen, name).value
        assert report.frozen.coherence_auroc != own.frozen.coherence_auroc


def test_intervals_hold_the_value_and_are_seeded(model: Model, dataset: FolderDataset) -> None:
    report = measure_alignment(model, dataset, n_pairs=500, n_resamples=80, seed=1)
    for tokens in (report.frozen, report.embedded):
        for each in (
            tokens.patch_accuracy_all,
            tokens.patch_accuracy_present,
            tokens.coherence_auroc,
        ):
            assert 0 <= each.low <= each.value <= each.high <= 1
            assert each.low < each.high
    again = measure_alignment(model, dataset, n_pairs=500, n_resamples=80, seed=1)
    assert again == report
    other = measure_alignment(model, dataset, n_pairs=500, n_resamples=80, seed=2)
    assert other.frozen.patch_accuracy_all.value == report.frozen.patch_accuracy_all.value
    assert other.frozen.coherence_auroc.low != report.frozen.coherence_auroc.low


def test_the_interval_of_accuracy_is_that_of_repeated_images(
    model: Model, dataset: FolderDataset
) -> None:
    from pacl.evaluation.metrics.bootstrap import draw_images

    report = measure_alignment(model, dataset, n_resamples=50, seed=4)
    of_image = []
    for item in dataset.items:
        alone = _Only(dataset, item)
        vocabulary = model.vocabulary(dataset.labels)
        of_image.append(
            measure_patch_accuracy(
                model.scorer(vocabulary),
                alone,  # type: ignore[arg-type]
                encoder=model.pacl.encoder,
                class_of_name=vocabulary.class_of_name,
            )
        )
    shares = []
    for row in draw_images(5, 50, seed=4).tolist():
        drawn = [of_image[k] for k in range(5) for _ in range(row[k])]
        n_patches = sum(each.n_patches for each in drawn)
        if n_patches:
            shares.append(sum(each.n_right_all for each in drawn) / n_patches)
    found = report.embedded.patch_accuracy_all
    expected = np.quantile(shares, [0.025, 0.975])
    assert [found.low, found.high] == pytest.approx(expected.tolist(), abs=1e-12)


def test_json_has_no_nan(model: Model, dataset: FolderDataset) -> None:
    content = measure_alignment(model, dataset).to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["frozen"]["coherence_auroc"]["low"] is None


class _Only:
    """A data set of one of another's images."""

    def __init__(self, dataset: FolderDataset, item: object) -> None:
        self.labels, self.ignore_label = dataset.labels, dataset.ignore_label
        self.read_mask, self._item = dataset.read_mask, item

    def __len__(self) -> int:
        return 1

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter((self._item,))


def test_the_table_has_intervals_where_images_were_resampled(
    model: Model, dataset: FolderDataset
) -> None:
    header, rows = alignment_table(measure_alignment(model, dataset, n_pairs=50, n_resamples=20))
    assert header == ["measure", "frozen", "95% interval", "embedded", "95% interval"]
    assert [len(row) for row in rows] == [5, 5, 5]
    report = measure_alignment(model, dataset, n_pairs=50)
    header, rows = alignment_table(report)
    assert header == ["measure", "frozen", "embedded"]
    assert rows[2][1] == f"{report.frozen.coherence_auroc.value:.3f}"
    unknown = replace(report.frozen, patch_accuracy_all=Estimate(math.nan, math.nan, math.nan))
    assert alignment_table(replace(report, frozen=unknown))[1][0][1] == "-"


@pytest.mark.parametrize("wrong", [{"n_pairs": 0}, {"n_resamples": -1}])
def test_numbers_that_cannot_be_drawn_are_refused(
    model: Model, dataset: FolderDataset, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="must"):
        measure_alignment(model, dataset, **wrong)
