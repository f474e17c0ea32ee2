"""Evaluation of a tiny CLIP under protocols: against brute force, rows, background, resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import references
from benchmark_copies import copy_voc
from checkpoints import write_clip
from pacl.api import Model, load
from pacl.data.images import open_image
from pacl.datasets.segmentation import load_benchmark
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.errors import InputError
from pacl.evaluation.predictor import PLAIN, WITH_PAMR, build_predictor
from pacl.evaluation.presets import build_preset
from pacl.evaluation.scoreboard import SegmentationScores
from pacl.evaluation.segmentation import (
    describe_time,
    evaluate_folder,
    evaluate_task,
)
from pacl.evaluation.task import Pamr, Task, build_task, digest_data
from pacl.inference.config import SegmentConfig
from pacl.runtime.stopwatch import Stopwatch

LABELS = "house,boat,snow"
CONFIG = SegmentConfig(short_side_px=32, batch_size=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_clip(tmp_path_factory.mktemp("checkpoint") / "clip"))


@pytest.fixture
def folder(tmp_path: Path) -> FolderDataset:
    """Five noisy pictures, patches of three classes, an ignored border."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "street" / name).mkdir(parents=True)
    for k in range(5):
        pixels = rng.integers(0, 256, (20, 24 + 2 * k, 3), dtype=np.uint8)
        mask = rng.integers(0, 3, (5, 6), dtype=np.uint8).repeat(4, 0).repeat(4 + k, 1)
        mask = mask[:, : 24 + 2 * k]
        mask[0] = 255
        Image.fromarray(pixels).save(tmp_path / "street" / "images" / f"{k}.png")
        Image.fromarray(mask).save(tmp_path / "street" / "masks" / f"{k}.png")
    return FolderDataset(tmp_path / "street", labels=LABELS)


@pytest.mark.parametrize("smoothing", [None, 0.3])
def test_scores_are_those_of_the_segmenter(
    model: Model, folder: FolderDataset, smoothing: float | None
) -> None:
    config = replace(CONFIG, smoothing=smoothing)
    images = [open_image(item.image_path) for item in folder]
    results = [model.segment(image, LABELS, config=config) for image in images]
    predictions = [torch.from_numpy(result.label_map.astype(np.int64) - 1) for result in results]
    targets = [torch.from_numpy(folder.read_mask(item)) for item in folder]
    expected = references.iou(predictions, targets, 3, [255])
    report = evaluate_folder(model, folder, config=config)
    np.testing.assert_allclose(report.iou, expected, atol=1e-12)
    assert report.n_images == 5
    assert report.protocol["short_side_px"] == 32
    task = build_task("street", folder, preset=None, config=config)
    scored = SegmentationScores(build_predictor(model, task))
    assert list(scored.iter_scored())[-1] == f"mIoU {report.miou:.3f}"
    assert scored.reports()[PLAIN].iou == report.iou
    own = [np.nanmean(references.iou([p], [t], 3, [255]))
           for p, t in zip(predictions, targets, strict=True)]  # fmt: skip
    np.testing.assert_allclose(scored.image_miou, own, atol=1e-12)


def test_two_rows_with_pamr(model: Model, folder: FolderDataset) -> None:
    plain = evaluate_task(
        build_predictor(model, build_task("a", folder, preset=None, config=CONFIG))
    )
    task = build_task("a", folder, preset=None, config=CONFIG, use_pamr=True)
    both = evaluate_task(build_predictor(model, task))
    assert list(plain) == [PLAIN]
    assert list(both) == [PLAIN, WITH_PAMR]
    assert both[PLAIN].iou == plain[PLAIN].iou
    assert both[WITH_PAMR].iou != plain[PLAIN].iou
    idle = replace(task, pamr=Pamr(iterations=0))
    unrefined = evaluate_task(build_predictor(model, idle))
    # Upsampled twice in place of once, so only nearly the same.
    assert unrefined[WITH_PAMR].miou == pytest.approx(unrefined[PLAIN].miou, abs=0.02)


def test_presets_bring_their_own_pamr(folder: FolderDataset) -> None:
    assert build_task("a", folder, preset=build_preset("sclip", "a")).pamr is None
    naclip = build_task("a", folder, preset=build_preset("naclip", "a"))
    assert naclip.pamr == Pamr(10, (8, 16))
    assert "with PAMR: 10 iterations, dilations 8, 16\n" in naclip.describe()
    tcl = build_task("voc21", folder, preset=build_preset("tcl", "voc21"))
    assert tcl.config.background_level == 0.5
    assert tcl.pamr is not None
    assert tcl.pamr.background_level == 0.4


def predict_voc(model: Model, root: Path, task: Task) -> list[np.ndarray]:
    predictor = build_predictor(model, task)
    examples = [predictor.read(item) for item in task.dataset.items]
    return [maps[0] for maps in predictor.predict(examples)]


def test_restricted_candidates_are_those_in_the_truth(model: Model, tmp_path: Path) -> None:
    copy_voc(tmp_path)
    for name in ("voc20", "voc21"):
        dataset = load_benchmark(name, tmp_path)
        preset = replace(build_preset("restricted", name), patch_stride_px=None, background="none")
        task = build_task(name, dataset, preset=preset)
        assert (task.is_restricted, task.is_comparable) == (True, False)
        maps = predict_voc(model, tmp_path, task)
        for found, item in zip(maps, dataset, strict=True):
            allowed = {*np.unique(dataset.read_mask(item)).tolist(), task.candidates.none_id}
            assert set(np.unique(found).tolist()) <= allowed
        assert (maps[2] == task.candidates.none_id).all()  # nothing in its truth is a class
        free = replace(preset, candidates="all")
        others = predict_voc(model, tmp_path, build_task(name, dataset, preset=free))
        assert any(set(np.unique(each)) - {7, 8, 19, 20, 0, -1} for each in others)


def test_none_of_the_words_is_the_background_where_it_is_a_class(
    model: Model, tmp_path: Path
) -> None:
    copy_voc(tmp_path)
    for name, expected in (("voc21", 0), ("voc20", -1)):
        preset = replace(build_preset("paper", name), patch_stride_px=None, background="entropy",
                         background_level=0.0)  # fmt: skip
        dataset = load_benchmark(name, tmp_path)
        maps = predict_voc(model, tmp_path, build_task(name, dataset, preset=preset))
        assert all((each == expected).all() for each in maps)


def test_what_a_state_belongs_to(model: Model, folder: FolderDataset) -> None:
    task = build_task("street", folder, preset=None, config=CONFIG)
    keys = {task.key("model"), task.key("another model")}
    keys.add(replace(task, config=replace(CONFIG, logit_scale=3.0)).key("model"))
    keys.add(replace(task, pamr=Pamr()).key("model"))
    keys.add(build_task("street", folder, preset=build_preset("sclip", "street")).key("model"))
    same = replace(task, config=replace(CONFIG, batch_size=7))
    assert same.key("model") in keys
    before = digest_data(folder)
    Image.new("L", (24, 20)).save(folder.items[0].mask_path)
    assert digest_data(folder) != before
    keys.add(task.key("model"))
    assert len(keys) == 6


def test_a_stride_that_does_not_fit_is_refused(model: Model, folder: FolderDataset) -> None:
    config = SegmentConfig(patch_stride_px=99)
    with pytest.raises(InputError, match="leaves gaps"):
        build_predictor(model, build_task("a", folder, preset=None, config=config))


def test_the_share_leaves_out_waiting_and_words() -> None:
    watch = Stopwatch()
    watch.seconds = {"encoder": 3.0, "labelling": 1.0, "waiting for images": 50.0, "words": 70.0}
    watch.add_background({"reading": 2.0})
    found = describe_time(watch)
    assert found["share_besides_encoder"] == pytest.approx((1 + 2) / (1 + 2 + 3))
    assert found["seconds"]["waiting for images"] == 50.0
    assert found["seconds"]["reading (threads)"] == 2.0


def test_examples_are_read_in_order_and_in_batches(model: Model, folder: FolderDataset) -> None:
    predictor = build_predictor(model, build_task("a", folder, preset=None, config=CONFIG))
    batches = list(predictor.iter_examples(folder.items))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    examples = [example for batch in batches for example in batch]
    for item, example in zip(folder, examples, strict=True):
        assert example.image.tobytes() == open_image(item.image_path).tobytes()
        np.testing.assert_array_equal(example.mask, folder.read_mask(item))
        assert min(example.pixels.shape[1:]) == 32
        assert set(example.seconds) == {"reading", "preprocessing"}
    folder.items[2].image_path.write_bytes(b"not an image")
    reading = predictor.iter_examples(folder.items)
    assert len(next(reading)) == 2
    with pytest.raises(InputError, match="is not an image"):
        next(reading)


def test_stages_are_timed_where_there_is_a_stopwatch(model: Model, folder: FolderDataset) -> None:
    task = build_task("a", folder, preset=None, config=CONFIG)
    watch = Stopwatch()
    predictor = build_predictor(model, task, stopwatch=watch)
    score, stages_of_scoring = predictor._segmenter.score, []

    def note_stage(*inputs: Any, **options: Any) -> Any:
        stages_of_scoring.append(watch._stages[-1])
        return score(*inputs, **options)

    predictor._segmenter.score = note_stage
    timed = SegmentationScores(predictor)
    plain = SegmentationScores(build_predictor(model, task))
    assert list(timed.iter_scored()) == list(plain.iter_scored())
    stages = {"words", "waiting for images", "encoder", "scoring", "labelling", "metrics"}
    assert set(watch.seconds) == stages
    assert stages_of_scoring
    assert set(stages_of_scoring) == {"scoring"}
    assert set(watch.background) == {"reading", "preprocessing"}
