from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from pacl.datasets.segmentation import BENCHMARKS, NAMES, find_benchmark
from pacl.errors import InputError
from pacl.evaluation.presets import PRESETS, build_preset
from pacl.evaluation.task import build_candidates
from pacl.text.labels import parse_labels
from pacl.text.templates import IMAGENET80, PAPER7


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("benchmark", [*NAMES, "camvid"])
def test_every_preset_of_every_set(name: str, benchmark: str) -> None:
    preset = build_preset(name, benchmark)
    config = preset.segment_config(batch_size=3)
    assert (config.window_px, config.logit_scale) == (preset.window_px, preset.logit_scale)
    assert config.batch_size == 3
    assert set(preset.unknown) <= set(json.loads(json.dumps(asdict(preset))))
    assert preset.digest in preset.describe()
    assert ("NOT COMPARABLE" in preset.describe()) == (not preset.comparable)
    has_rule = preset.background != "none"
    assert not has_rule or benchmark in ("voc21", "context60", "coco-object")


def test_the_numbers_of_the_protocols() -> None:
    def windows(name: str, benchmark: str) -> tuple[int | None, ...]:
        preset = build_preset(name, benchmark)
        return preset.short_side_px, preset.window_px, preset.window_stride_px

    assert windows("sclip", "ade150") == windows("sclip", "voc21") == (336, 224, 112)
    assert windows("sclip", "cityscapes") == (560, 224, 112)
    assert windows("sclip", "coco-stuff171") == (448, 224, 112)
    assert windows("naclip", "voc20") == (336, None, None)
    assert windows("naclip", "coco-stuff171") == (336, 224, 112)
    assert windows("tcl", "cityscapes") == (448, 448, 224)
    assert windows("paper", "voc20") == (None, None, None)
    scales = [
        build_preset("sclip", b).logit_scale for b in ("voc20", "voc21", "context60", "coco-object")
    ]
    assert scales == [40, 65, 50, 50]
    assert build_preset("naclip", "ade150").pamr_dilations == (8, 16)
    assert build_preset("sclip", "voc21").templates == IMAGENET80
    assert len(build_preset("tcl", "voc21").templates) == 9
    paper = build_preset("paper", "voc21")
    assert (paper.templates, paper.patch_stride_px) == (PAPER7, 4)
    assert (paper.background, paper.background_level) == ("entropy", 1.5)


def test_what_may_not_be_compared() -> None:
    for name in PRESETS:
        preset = build_preset(name, "voc20")
        assert preset.comparable == (name not in ("paper", "restricted", "tcl"))
        assert (preset.candidates == "present") == (name == "restricted")
    assert build_preset("sclip", "voc21").comparable
    assert build_preset("naclip", "voc21").comparable
    published = [b for b in NAMES if build_preset("maskclip", b).comparable]
    assert sorted(published) == ["coco-stuff171", "context59", "voc20"]


def test_presets_without_an_authors_path_keep_their_hashes() -> None:
    values = build_preset("paper", "voc20").values()
    assert not {"path", "vocabulary", "renames"} & set(values)
    assert build_preset("sclip", "voc20").values()["path"]["resize_filter"] == "opencv"
    assert "resize_filter opencv" in build_preset("sclip", "voc20").describe()


def test_the_authors_spelling_of_the_classes() -> None:
    def words(name: str, benchmark: str) -> set[str]:
        labels = build_candidates(find_benchmark(benchmark), build_preset(name, benchmark)).labels
        return {word for prompts in labels.prompts for word in prompts}

    ade = "windowpane palm televisionreceiver conveyerbelt washer plaything tradename pot screen"
    assert {*ade.split(), "hood", "ashcan", "glass", "chestofdrawers"} <= words("sclip", "ade150")
    assert {"trade name", "streetlight", "traffic light"} <= words("tcl", "ade150")
    stuff = words("naclip", "coco-stuff171")
    assert {"building-other", "wall-brick", "desk-stuff", "trafficlight", "playingfield"} <= stuff
    assert {"ship", "table", "pottedplant"} <= words("sclip", "voc20")
    assert {"boat", "diningtable", "tvmonitor"} <= words("tcl", "voc20")
    assert {"airplane", "dining table"} <= words("maskclip", "voc20")
    assert {"brick wall", "panel wall", "waterdrops"} <= words("maskclip", "coco-stuff171")
    assert "traffic light" in words("sclip", "coco-object")


def test_the_hash_follows_every_knob() -> None:
    preset = build_preset("sclip", "voc20")
    assert preset.digest == build_preset("sclip", "voc20").digest
    others = [
        build_preset("sclip", "ade150"),
        replace(preset, logit_scale=41.0),
        replace(preset, templates=PAPER7),
        replace(preset, pamr_dilations=(1,)),
    ]
    assert len({preset.digest, *(other.digest for other in others)}) == 5


def test_an_unknown_preset() -> None:
    with pytest.raises(InputError, match="choose one of: sclip, tcl"):
        build_preset("mmseg", "voc20")


@pytest.mark.parametrize("name", PRESETS)
def test_candidates_cover_the_classes(name: str) -> None:
    for benchmark in BENCHMARKS:
        preset = replace(build_preset(name, benchmark.name), use_synonyms=True)
        candidates = build_candidates(benchmark, preset)
        pairs = zip(candidates.labels.names, candidates.labels.prompts, strict=True)
        parse_labels(dict(pairs))  # no word twice
        names = [benchmark.class_names[k] for k in candidates.class_ids]
        assert names == list(candidates.labels.names)
        left_out = set(benchmark.class_names) - set(names)
        assert left_out <= {"background", "bed"}
        assert candidates.none_id == (0 if benchmark.has_background else -1)


def test_background_by_words_by_name_and_by_rule_alone() -> None:
    voc21 = find_benchmark("voc21")
    by_words = build_candidates(voc21, build_preset("sclip", "voc21"))
    assert by_words.labels.names[0] == "background"
    assert len(by_words.labels.prompts[0]) == 26
    context60 = find_benchmark("context60")
    by_name = build_candidates(context60, build_preset("sclip", "context60"))
    assert by_name.labels.prompts[0] == ("background",)
    by_rule = build_candidates(voc21, build_preset("tcl", "voc21"))
    assert by_rule.labels.names == voc21.class_names[1:]
    coco_object = find_benchmark("coco-object")
    words, person, *others = build_candidates(
        coco_object, build_preset("sclip", "coco-object")
    ).labels.prompts
    assert {"bed", "wall"} <= set(words)
    assert person[::7] == ("person", "body")
    assert all(len(each) == 1 for each in others)
    assert ("bed",) not in others  # the background's, where the two tie


def test_from_labels_to_class_ids() -> None:
    label_map = np.array([[0, 1, 20]], dtype=np.int32)
    by_rule = build_candidates(find_benchmark("voc21"), build_preset("tcl", "voc21"))
    np.testing.assert_array_equal(by_rule.to_class_ids(label_map), [[0, 1, 20]])
    by_words = build_candidates(find_benchmark("voc21"), build_preset("sclip", "voc21"))
    np.testing.assert_array_equal(by_words.to_class_ids(label_map), [[0, 0, 19]])
    plain = build_candidates(find_benchmark("voc20"), build_preset("sclip", "voc20"))
    np.testing.assert_array_equal(plain.to_class_ids(label_map), [[-1, 0, 19]])
    assert by_rule.present([0, 3, 20, 255]) == (2, 19)
