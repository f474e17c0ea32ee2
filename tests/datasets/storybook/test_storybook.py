"""Storybook: deterministic, honest captions, exact masks, and splits that keep their promise."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacl.data.pairs import read_pairs
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.datasets.storybook import (
    HELD_OUT_COLOURS,
    LABELS,
    STUFF,
    THINGS,
    draw_scene,
    draw_storybook,
)
from pacl.datasets.storybook.paint import COLOURS
from pacl.text.nouns import extract_nouns

pytestmark = pytest.mark.slow

SPLITS = ("train", "validation", "test", "things", "seen_compositions", "heldout_compositions")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    counts = dict.fromkeys(SPLITS, 5) | {"things": len(THINGS)}
    return draw_storybook(tmp_path_factory.mktemp("storybook"), counts=counts, n_workers=1)


def test_world_has_enough_classes_of_both_kinds():
    assert len(LABELS) == len(set(LABELS)) >= 24
    assert len(STUFF) >= 8
    assert len(THINGS) >= 8


def test_same_seed_gives_the_same_picture_and_another_seed_another():
    first, again = (draw_scene("train", 3, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.captions == again.captions
    assert (draw_scene("train", 3, seed=6).image != first.image).any()
    assert (draw_scene("test", 3, seed=5).image != first.image).any()


def test_every_class_is_drawn_and_every_pixel_has_one():
    seen = set()
    for index in range(30):
        drawing = draw_scene("train", index, size_px=64)
        assert drawing.mask.max() < len(LABELS)
        seen |= set(np.unique(drawing.mask).tolist())
    assert seen == set(range(len(LABELS)))


def test_captions_name_some_but_not_all_of_what_is_visible():
    n_named, n_visible, n_wrong = 0, 0, 0
    for index in range(50):
        drawing = draw_scene("train", index)
        counts = np.bincount(drawing.mask.ravel(), minlength=len(LABELS))
        visible = {LABELS[k] for k in np.flatnonzero(counts >= 0.006 * drawing.mask.size)}
        for caption in drawing.captions:
            named = set(extract_nouns(caption)) & set(LABELS)
            n_named += len(named & visible)
            n_wrong += len(named - visible)
            n_visible += len(visible)
    assert n_wrong == 0
    assert 0.25 * n_visible < n_named < 0.75 * n_visible


def test_held_out_compositions_are_never_captioned_nor_drawn_in_training():
    held_out = {
        f"person in {colour}" if thing == "person" else f"{colour} {thing}"
        for thing, colour in HELD_OUT_COLOURS.items()
    }
    for split in ("train", "validation", "test", "seen_compositions"):
        for index in range(200):
            for caption in draw_scene(split, index, size_px=32).captions:
                assert not any(phrase in caption for phrase in held_out), caption
    for index in range(20):
        drawing = draw_scene("heldout_compositions", index, size_px=32)
        assert drawing.phrase.split(" ", 1)[1] in held_out


def test_composition_splits_differ_only_in_the_colour_of_the_thing():
    for index in range(2 * len(HELD_OUT_COLOURS)):
        seen = draw_scene("seen_compositions", index, size_px=64)
        held_out = draw_scene("heldout_compositions", index, size_px=64)
        assert seen.label == held_out.label
        assert seen.phrase != held_out.phrase
        np.testing.assert_array_equal(seen.mask, held_out.mask)
        differs = (seen.image.astype(int) - held_out.image.astype(int)) != 0
        assert not differs.any(axis=-1)[seen.mask != LABELS.index(seen.label)].mean() > 0.02


def test_things_split_holds_one_thing_each():
    for index in range(2 * len(THINGS)):
        drawing = draw_scene("things", index, size_px=64)
        things = {LABELS[k] for k in np.unique(drawing.mask)} & set(THINGS)
        assert things == {drawing.label}


def test_written_splits_are_read_by_the_readers_of_real_data(folders):
    for split in SPLITS:
        pairs = read_pairs(folders[split])
        dataset = FolderDataset(folders[split])
        assert len(pairs.image_paths) == len(dataset)
        assert all(len(captions) >= 1 for captions in pairs.captions)
        assert dataset.labels.names == LABELS
    drawing = draw_scene("test", 4)
    dataset = FolderDataset(folders["test"])
    np.testing.assert_array_equal(dataset.read_mask(dataset.items[4]), drawing.mask)
    with Image.open(dataset.items[4].image_path) as image:
        np.testing.assert_array_equal(np.asarray(image), drawing.image)


def test_labels_table_names_each_picture(folders):
    with (folders["things"] / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == list(THINGS)
    assert set(HELD_OUT_COLOURS.values()) <= set(COLOURS)


def test_finished_split_is_kept_and_a_changed_one_drawn_again(tmp_path):
    folder = draw_storybook(tmp_path, counts={"test": 2}, n_workers=1)["test"]
    first = (folder / "images" / "000000.png").stat().st_mtime_ns
    draw_storybook(tmp_path, counts={"test": 2}, n_workers=1)
    assert (folder / "images" / "000000.png").stat().st_mtime_ns == first
    draw_storybook(tmp_path, counts={"test": 3}, n_workers=1)
    assert json.loads((folder / "storybook.json").read_text())["count"] == 3
    assert len(FolderDataset(folder)) == 3
    draw_storybook(tmp_path, counts={"test": 1}, n_workers=1)
    assert len(FolderDataset(folder)) == 1
