"""What the quickstart trains, compares and writes, with stand-ins for all that takes time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pacl import quickstart
from pacl.api import Model
from pacl.datasets.classification.dataset import PackedPixels, Split
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.datasets.storybook import LABELS, THINGS
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers.hf import HfClip
from pacl.quickstart import pictures, scores, world
from pacl.quickstart.world import SEGMENT, World
from pacl.text.templates import PAPER7
from pacl.training.config import PAPER, TrainConfig

WORLD = World(
    train=Path("train"),
    validation=FolderDataset.__new__(FolderDataset),
    test=FolderDataset.__new__(FolderDataset),
    things=Path("things"),
    seen=Path("seen"),
    heldout=Path("heldout"),
)


@pytest.fixture
def told(clip: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the stand-ins of a run were given, by their names."""
    told: dict[str, Any] = {"trained": [], "scored": {}}
    encoder = HfClip.from_pretrained(clip)

    def note(name: str, answer: Any) -> None:
        def stand_in(*values: Any, **named: Any) -> Any:
            told[name] = (*values, *named.values())
            return answer

        monkeypatch.setattr(quickstart, name, stand_in)

    def train(config: TrainConfig, **_: Any) -> Any:
        told["trained"].append(config)
        Pacl(
            encoder=encoder,
            embedder=VisionEmbedder(encoder.width, encoder.joint_width),
            token_layer=config.token_layer,
            training={"run": config.output.name},
        ).save_pretrained(config.output / "last")
        return SimpleNamespace(checkpoint_dir=config.output / "last")

    def score_model(name: str, model: Model, of: World, *, top1: float) -> dict[str, Any]:
        assert of is WORLD
        told["scored"][name] = model.pacl
        return {"method": name, "classification_top1": top1}

    monkeypatch.setattr(quickstart, "find_source", lambda _: str(clip))
    monkeypatch.setattr(quickstart, "train", train)
    monkeypatch.setattr(quickstart, "score_model", score_model)
    note("draw_world", WORLD)
    note("fit_linear_probe", "the probe")
    note("score_probe", {"method": "supervised linear probe"})
    names = ("CLIP", "MaskCLIP", "PACL (paper)", "PACL", "fusion")
    note("score_things", {name: k / 8 for k, name in enumerate(names)})
    coherence = [SimpleNamespace(coherence_auroc=SimpleNamespace(value=v)) for v in (0.6, 0.7)]
    note("measure_alignment", SimpleNamespace(frozen=coherence[0], embedded=coherence[1]))
    note("score_compositions", {"seen_iou": 0.5})
    note("draw_pictures", None)
    note("draw_curves", None)
    return told


def test_rows_are_the_methods_they_name(told: dict[str, Any], tmp_path: Path) -> None:
    config = quickstart.QuickstartConfig(
        tmp_path, n_train=7, n_test=5, epochs=4, paper_epochs=2, seed=3
    )
    report = quickstart.run_quickstart(config, on_stage=lambda *_: None)
    assert told["draw_world"][:4] == (tmp_path / "storybook", 7, 5, 3)

    ours, paper = told["trained"]
    assert ours == TrainConfig(
        data=WORLD.train, output=tmp_path / "pacl", model="storybook",
        batch_size=32, lr=3e-3, epochs=4, patches_per_image=64, log_every=2,
    )  # fmt: skip
    method = {k: PAPER[k] for k in ("patch_temperature", "token_layer", "init", "noun_weight")}
    passes = {"epochs": 2, "patches_per_image": None}
    assert paper == replace(ours, output=tmp_path / "paper", **passes, **method)
    assert paper != replace(ours, output=paper.output)

    models = told["scored"]
    rows = [(row["method"], row.get("classification_top1")) for row in report["rows"]]
    assert rows == [
        ("CLIP", 0), ("MaskCLIP", 1 / 8), ("PACL (paper)", 2 / 8), ("PACL", 3 / 8),
        ("supervised linear probe", None),
    ]  # fmt: skip
    assert (models["CLIP"].embedder, models["CLIP"].token_kind) == (None, "clip")
    assert (models["MaskCLIP"].embedder, models["MaskCLIP"].token_kind) == (None, "maskclip")
    for name, run in (("PACL", "pacl"), ("PACL (paper)", "paper")):
        assert models[name].training_facts == {"run": run}
    assert {id(model.encoder) for model in models.values()} == {id(models["CLIP"].encoder)}

    encoder, data, tokens = told["fit_linear_probe"]
    assert data is WORLD.validation, "the probe learns from other scenes than it is scored on"
    assert (tokens.kind, tokens.layer) == (models["PACL"].token_kind, models["PACL"].token_layer)
    assert told["score_probe"] == ("the probe", tokens, encoder, WORLD)
    for name, of in (("measure_alignment", WORLD.test), ("score_compositions", WORLD)):
        assert (told[name][0].pacl, told[name][1]) == (models["PACL"], of)
    assert {n: m.pacl for n, m in told["score_things"][0].items()} == models
    assert {n: m.pacl for n, m in told["draw_pictures"][0].items()} == models
    assert told["draw_curves"][0] == {
        "PACL": tmp_path / "pacl/metrics.jsonl", "PACL (paper)": tmp_path / "paper/metrics.jsonl"
    }  # fmt: skip

    assert (report["coherence_auroc"], report["coherence_auroc_embedded"]) == (0.6, 0.7)
    assert report["classification_fusion_top1"] == 4 / 8
    assert report["compositions"] == {"seen_iou": 0.5}
    assert (report["n_train"], report["n_test"], report["seed"]) == (7, 5, 3)
    files = [Path(path).name for path in report.pop("files")]
    assert files == ["report.json", "sheet.png", "curve.png"]
    assert json.loads((tmp_path / "report.json").read_text()) == report


def test_the_world_is_drawn_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {}

    def draw(directory: Path, **settings: Any) -> dict[str, Path]:
        told[directory] = settings
        return {name: directory / name for name in settings["counts"]}

    opened: dict[Path, FolderDataset] = {}

    def open_folder(path: Path) -> FolderDataset:
        return opened.setdefault(path, FolderDataset.__new__(FolderDataset))

    monkeypatch.setattr(world, "draw_storybook", draw)
    monkeypatch.setattr(world, "FolderDataset", open_folder)
    show: Callable[[int, int], None] = lambda *_: None  # noqa: E731
    drawn = world.draw_world(Path("w"), n_train=7, n_test=5, seed=3, on_progress=show)
    counts = {
        "train": 7, "validation": 5, "test": 5, "things": 10 * len(THINGS),
        "seen_compositions": 60, "heldout_compositions": 60,
    }  # fmt: skip
    assert told == {Path("w"): {"counts": counts, "seed": 3, "on_progress": show}}
    assert drawn == World(
        train=Path("w/train"), validation=opened[Path("w/validation")],
        test=opened[Path("w/test")], things=Path("w/things"),
        seen=Path("w/seen_compositions"), heldout=Path("w/heldout_compositions"),
    )  # fmt: skip
    assert SEGMENT.patch_stride_px == 4


def test_top1_of_baselines_is_clips_and_fusion_has_its_own(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def evaluate(model: Model, data: Any, **settings: Any) -> Any:
        told.append((model, data.labels.names, data.test, data.train, settings))
        rows = {"clip": 0.25, "pacl": 0.5, "fusion": 0.75}
        return SimpleNamespace(rows={k: SimpleNamespace(top1=v) for k, v in rows.items()})

    monkeypatch.setattr(scores, "evaluate_set", evaluate)
    images = Split(PackedPixels(np.zeros((1, 3, 8, 8), np.uint8)), np.zeros(1, np.int64))
    monkeypatch.setattr(scores, "read_things", {WORLD.things: images}.__getitem__)
    baseline = Model(Pacl(encoder=model.pacl.encoder, embedder=None))
    found = scores.score_things({"CLIP": baseline, "PACL": model}, WORLD)
    assert found == {"CLIP": 0.25, "PACL": 0.5, "fusion": 0.75}
    settings = {"templates": PAPER7, "patch_stride_px": SEGMENT.patch_stride_px}
    assert told == [(model, tuple(THINGS), images, None, settings)]


def test_compositions_are_means_over_the_classes_of_each_split(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_split = {"seen": {"boat": 0.2, "car": 0.6}, "heldout": {"boat": 0.1, "car": 0.2}}
    told: list[Any] = []

    def evaluate(*values: Any, **settings: Any) -> dict[str, float]:
        told.append((*values, settings))
        return of_split[values[1]]

    monkeypatch.setattr(scores, "evaluate_phrases", evaluate)
    monkeypatch.setattr(scores, "FolderDataset", str)
    monkeypatch.setattr(scores, "read_phrases", lambda folder: ([f"{folder} label"], ["phrase"]))
    found = scores.score_compositions(model, WORLD)
    assert (found["seen_by_class"], found["heldout_by_class"]) == tuple(of_split.values())
    assert (found["seen_iou"], found["heldout_iou"]) == pytest.approx((0.4, 0.15))
    assert found["relative_loss"] == pytest.approx(1 - 0.15 / 0.4)
    assert told == [
        (model, name, [f"{name} label"], ["phrase"], {"config": SEGMENT}) for name in of_split
    ]


def test_the_sheet_takes_the_first_scenes_of_many_large_classes() -> None:
    things = [LABELS.index(thing) for thing in THINGS[:3]]
    stuff = [k for k, label in enumerate(LABELS) if label not in THINGS]

    class Masks(FolderDataset):
        def __init__(self, *ids: list[int]) -> None:
            self.items = tuple(ids)  # type: ignore[assignment]

        def read_mask(self, item: Any) -> np.ndarray:
            mask = np.full((128, 128), item[0], dtype=np.int64)
            for row, label in enumerate(item[1:]):
                mask[2 * row : 2 * row + 2] = label  # 256 pixels: 1.6 %
            mask[-1] = stuff[5]  # 128 pixels: too few
            return mask

    varied, again = [*stuff[:3], *things], [*stuff[1:4], *things]
    of_two_things, of_five_classes = [*stuff[:4], *things[:2]], [*stuff[:2], *things]
    data = Masks(of_two_things, varied, of_five_classes, again, varied)
    assert pictures._most_varied(data, 2) == [varied, again]
