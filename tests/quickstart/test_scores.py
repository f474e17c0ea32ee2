"""The quickstart's world, the numbers of its table and its sheet, on a world of few images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import references
from pacl.api import Model, load
from pacl.data.images import open_image
from pacl.data.pairs import read_pairs
from pacl.datasets.classification.dataset import plain_labels
from pacl.datasets.storybook import LABELS, THINGS
from pacl.evaluation.alignment import measure_patch_accuracy
from pacl.evaluation.probe import TokenChoice, build_probe_scorer
from pacl.inference.segmenter import Segmenter
from pacl.inference.windows import PatchScorer
from pacl.modeling.compatibility import patch_compatibility
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers import FrozenClip
from pacl.modeling.towers.hf import HfClip
from pacl.quickstart import pictures, scores, world
from pacl.quickstart.world import SEGMENT, World, draw_world, read_phrases
from pacl.results import Segmentation
from pacl.text.templates import PAPER7

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "N_PER_THING", 1)
        patch.setattr(world, "N_COMPOSITIONS", 3)
        directory = tmp_path_factory.mktemp("world")
        yield draw_world(directory, n_train=3, n_test=2, seed=7, on_progress=lambda *_: None)


@pytest.fixture(scope="module")
def models(storybook_model: Path) -> dict[str, Model]:
    ours = load(str(storybook_model))
    clip = Pacl(encoder=ours.pacl.encoder, embedder=None, token_kind="clip")
    return {"CLIP": Model(clip), "PACL": ours}


def test_every_split_is_what_it_is_called(drawn: World) -> None:
    assert len(read_pairs(drawn.train).captions) == 3
    assert len(drawn.validation) == len(drawn.test) == 2
    first, second = (open_image(next(iter(d)).image_path) for d in (drawn.validation, drawn.test))
    assert not np.array_equal(np.asarray(first), np.asarray(second))
    labels, phrases = read_phrases(drawn.things)
    assert sorted(labels) == sorted(THINGS)
    assert all(label in phrase for label, phrase in zip(labels, phrases, strict=True))
    pairs_of = [
        set(zip(*read_phrases(folder), strict=True)) for folder in (drawn.seen, drawn.heldout)
    ]
    assert all(pairs_of)
    assert not pairs_of[0] & pairs_of[1]


def test_columns_of_a_model_are_those_of_its_own_masks(
    drawn: World, models: dict[str, Model]
) -> None:
    rows = {name: scores.score_model(name, m, drawn, top1=0.25) for name, m in models.items()}
    assert rows["CLIP"]["miou"] != rows["PACL"]["miou"], "or a swapped row would go unnoticed"
    for name, model in models.items():
        images = [open_image(item.image_path) for item in drawn.test]
        found = [model.segment(image, drawn.test.labels, config=SEGMENT) for image in images]
        words = model.vocabulary(drawn.test.labels)
        check_row(rows[name], found, model.scorer(words), drawn, model.pacl.encoder)
        assert (rows[name]["method"], rows[name]["classification_top1"]) == (name, 0.25)


def test_columns_of_the_probe_are_those_of_its_own_masks(
    drawn: World, models: dict[str, Model]
) -> None:
    encoder, tokens = models["PACL"].pacl.encoder, TokenChoice(kind="maskclip", layer=-2)
    assert isinstance(encoder, HfClip)
    names = drawn.test.labels.names
    torch.manual_seed(0)
    probe = torch.nn.Linear(encoder.width, len(names)).requires_grad_(False)
    segmenter = Segmenter(
        build_probe_scorer(encoder, probe, tokens, patch_stride_px=4),
        encoder=encoder,
        labels=names,
        class_of_name=torch.arange(len(names)),
        logit_scale=1.0,
        config=SEGMENT,
    )
    images = [open_image(item.image_path) for item in drawn.test]
    found = segmenter.segment([segmenter.prepare(image) for image in images])
    row = scores.score_probe(probe, tokens, encoder, drawn)
    scorer = build_probe_scorer(encoder, probe, tokens)
    check_row(row, found, scorer, drawn, encoder)
    assert (row["method"], row["classification_top1"]) == ("supervised linear probe", None)


def check_row(
    row: dict[str, Any],
    found: list[Segmentation],
    scorer: PatchScorer,
    drawn: World,
    encoder: FrozenClip,
) -> None:
    """Compare a row with sets of pixels, and with whole patches, of the test scenes."""
    masks = [torch.from_numpy(drawn.test.read_mask(item)).int() for item in drawn.test]
    names, ignored = drawn.test.labels.names, drawn.test.ignore_label
    guesses = [torch.from_numpy(result.label_map).int() - 1 for result in found]
    iou = np.array(references.iou(guesses, masks, len(names), [ignored]))
    assert row["miou"] == pytest.approx(np.nanmean(iou))
    of_class = [row["iou"][label] for label in names]
    assert [v for v in of_class if v is not None] == pytest.approx(list(iou[~np.isnan(iou)]))
    pairs = [
        (guess[m != ignored], m[m != ignored]) for guess, m in zip(guesses, masks, strict=True)
    ]
    n_right = sum(int((guess == mask).sum()) for guess, mask in pairs)
    assert row["pixel_accuracy"] == pytest.approx(n_right / sum(len(mask) for _, mask in pairs))
    patches = measure_patch_accuracy(
        scorer, drawn.test, encoder=encoder, class_of_name=torch.arange(len(names))
    )
    assert row["patch_accuracy_all"] == patches.over_all()
    assert row["patch_accuracy_present"] == patches.over_present()
    assert patches.over_all() < patches.over_present(), "or swapped columns would go unnoticed"


def test_the_sheet_shows_each_column_s_own_masks(
    drawn: World, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    item = next(iter(drawn.test))
    monkeypatch.setattr(pictures, "_most_varied", lambda *_: [item])
    sheets: list[Any] = []
    monkeypatch.setattr(pictures, "draw_sheet", lambda rows, path: sheets.append((rows, path)))
    pictures.draw_pictures(models, drawn, tmp_path / "sheet.png")
    [([row], path)] = sheets
    assert path == tmp_path / "sheet.png"
    cells = dict(row)
    for name, model in models.items():
        result = model.segment(item.image_path, drawn.test.labels, config=SEGMENT)
        assert same(cells[name], result.overlay(legend=False, opacity=1))
    assert not same(cells["CLIP"], cells["PACL"])
    assert same(cells["image"], open_image(item.image_path))

    mask = drawn.test.read_mask(item)
    ours = models["PACL"].segment(item.image_path, drawn.test.labels, config=SEGMENT)
    truth = replace(ours, label_map=mask + 1)  # 0 is none of the labels
    assert same(cells["truth"], truth.overlay(legend=False, opacity=1))
    areas = {name: (mask == k).mean() for k, name in enumerate(LABELS) if name in THINGS}
    wanted = sorted((n for n in areas if areas[n] > 0.01), key=areas.__getitem__, reverse=True)[:3]
    assert len(wanted) > 1
    assert [title for title, _ in row[4:]] == [f"“{name}”" for name in wanted]
    for name in wanted:
        assert same(cells[f"“{name}”"], ours.heatmap(name))


def same(image: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(image), np.asarray(other))


def test_top1_is_that_of_each_method(drawn: World, models: dict[str, Model]) -> None:
    """Counted here image by image, with the text prompts and patches that the table states."""
    top1 = scores.score_things(models, drawn)
    pacl = models["PACL"].pacl
    texts, _ = pacl.encode_classes(plain_labels(THINGS), PAPER7)
    labels, _ = read_phrases(drawn.things)
    files = sorted((drawn.things / "images").iterdir())
    right = {"PACL": 0, "CLIP": 0}
    with torch.inference_mode():
        for path, label in zip(files, labels, strict=True):
            images = pacl.encoder.prepare(open_image(path))[None]
            patches = pacl.patch_embeds(images, stride_px=4).flatten(1, 2)
            ours = patch_compatibility(patches, texts, patch_temperature=pacl.patch_temperature)
            theirs = pacl.encoder.encode_images(images) @ texts.T
            right["PACL"] += THINGS[int(ours.argmax())] == label
            right["CLIP"] += THINGS[int(theirs.argmax())] == label
    assert right["PACL"] != right["CLIP"], "or a swapped row would go unnoticed"
    assert {name: top1[name] * len(labels) for name in right} == pytest.approx(right)
