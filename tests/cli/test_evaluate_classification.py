"""Classification sets on the command line: files, tables, resuming."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from classification_copies import COPIES, save_picture
from pacl.cli import classification, main
from pacl.cli.classification import (
    pick_classification,
    run_classification_benchmarks,
    run_if_classification,
)
from pacl.cli.evaluate import Evaluate
from pacl.cli.options import ModelOptions
from pacl.errors import InputError
from pacl.evaluation.classification import SetProgress
from pacl.inference.config import SegmentConfig


@pytest.fixture
def loading(clip: Path) -> ModelOptions:
    return ModelOptions(model=str(clip), device="cpu")


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _run(names: list[str], root: str | None, loading: ModelOptions, **more: object) -> int:
    return run_classification_benchmarks(
        names,
        root=None if root is None else Path(root),
        output=Path("out"),
        loading=loading,
        **more,  # type: ignore[arg-type]
    )


def test_scores_keeps_and_tabulates(
    loading: ModelOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pets", "imagenet-a"):
        COPIES[name](Path("data"))
    assert _run(["pets", "imagenet-a"], "data", loading, batch_size=1) == 0
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()[2:]] == (
        ["pets"] * 3 + ["imagenet-a"] * 3
    )
    assert "2 images of Oxford-IIIT Pets test, where 3,669 are expected" in printed.err
    content = json.loads(next(Path("out").glob("pets_*.json")).read_text())
    assert content["usual_metric"] == "mean_per_class"
    assert list(content["rows"]) == ["clip", "pacl", "fusion"]
    assert content["fusion"]["n_images"] == 1
    assert content["settings"]["templates"][0] == "a photo of a {}, a type of pet."
    with Path("out/classification.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert [row["set"] for row in rows[::3]] == ["imagenet-a", "pets"]
    assert [row["usual"] for row in rows[::3]] == ["top-1", "mean"]
    assert rows[2]["score"] == "fusion, CLIP's share 0.50, fixed"
    assert float(rows[3]["top-1"]) == round(100 * content["rows"]["clip"]["top1"], 2)
    marked = Path("out/classification.md").read_text()
    assert "used is unknown" in marked
    assert marked.count("\n| pets |") == 3
    assert not list(Path("out").glob("*.partial.json"))


def test_what_is_scored_is_not_scored_again(
    loading: ModelOptions, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    COPIES["dtd"](Path("data"))
    _run(["dtd"], "data", loading, json=True)
    first = capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr("pacl.evaluation.classification.evaluate_set", None)
        _run(["dtd"], "data", loading, json=True)
    again = capsys.readouterr()
    assert again.out == first
    assert "scored before" in again.err
    with pytest.raises(InputError, match="other settings: templates"):
        _run(["dtd"], "data", loading, templates="simple")
    next(Path("out").glob("dtd_*.json")).unlink()
    _run(["dtd"], "data", loading, templates="simple")
    content = json.loads(next(Path("out").glob("dtd_*.json")).read_text())
    assert content["settings"]["templates"] == ["a photo of a {}."]


def test_goes_on_after_an_interrupt(
    loading: ModelOptions, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        save_picture(Path(f"photos/boat/{number}.png"), 40 * number)
        save_picture(Path(f"photos/house/{number}.png"), 200 - 40 * number)
    _run(["image-folder"], "photos", loading, batch_size=2, json=True)
    whole = json.loads(capsys.readouterr().out)
    for path in Path("out").iterdir():
        path.unlink()
    monkeypatch.setattr(classification, "_SAVE_EVERY_S", 0.0)
    real = classification._Keeper.__call__

    def stop_at_four(self: classification._Keeper, counts: SetProgress, n_images: int) -> None:
        real(self, counts, n_images)
        if counts.n_done == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(classification._Keeper, "__call__", stop_at_four)
        with pytest.raises(KeyboardInterrupt):
            _run(["image-folder"], "photos", loading, batch_size=2)
    assert len(list(Path("out").glob("*.partial.json"))) == 1
    capsys.readouterr()
    _run(["image-folder"], "photos", loading, batch_size=2, json=True)
    printed = capsys.readouterr()
    assert "going on after 4 of 6 images" in printed.err
    assert json.loads(printed.out) == whole
    assert not list(Path("out").glob("*.partial.json"))


def test_storybook_needs_no_root(loading: ModelOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    from pacl.datasets.classification import storybook

    monkeypatch.setattr(storybook, "N_TEST", 4)
    monkeypatch.setattr(storybook, "N_TRAIN", 2)
    assert _run(["storybook-things"], None, loading) == 0
    assert Path("runs/storybook-things/test/things/labels.csv").is_file()


def test_what_cannot_be_run(loading: ModelOptions) -> None:
    with pytest.raises(InputError, match="where is food101") as caught:
        _run(["food101"], None, loading)
    assert "--root" in caught.value.fix
    with pytest.raises(InputError, match="no classification set called 'mnist'"):
        _run(["mnist"], "data", loading)
    COPIES["dtd"](Path("data"))
    with pytest.raises(InputError, match="unknown templates 'best'"):
        _run(["dtd"], "data", loading, templates="best")


def test_names_of_sets_are_told_from_folders() -> None:
    assert pick_classification(("dtd", "pets"), Path("data")) == ("dtd", "pets")
    assert pick_classification(("voc20", "street"), Path("data")) == ()
    Path("cars/masks").mkdir(parents=True)
    assert pick_classification(("cars",), None) == ()
    assert pick_classification(("cars",), Path("data")) == ("cars",)
    with pytest.raises(InputError, match="dtd is a set to classify, voc20 one to segment"):
        pick_classification(("voc20", "dtd"), Path("data"))


def test_options_of_evaluate(loading: ModelOptions, capsys: pytest.CaptureFixture[str]) -> None:
    COPIES["dtd"](Path("data"))
    line = ["evaluate", "dtd", "--root", "data", "--output", "out", "--model", loading.model]
    assert main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["benchmark"] == "dtd"
    options = Evaluate(("dtd",), root=Path("data"), output=Path("out"), loading=loading)
    more = ["--templates", "simple", "--patch-stride-px", "8", "--batch-size", "1", "--json"]
    assert main([*line, *more, "--output", "finer"]) == 0
    settings = json.loads(capsys.readouterr().out)[0]["settings"]
    assert settings["templates"] == ["a photo of a {}."]
    assert settings["patch_stride_px"] == 8
    assert main([*line, "--patch-stride-px", "99"]) == 2
    assert "leaves gaps between patches" in capsys.readouterr().err
    assert run_if_classification(replace(options, benchmarks=("voc20",))) is None
    assert run_if_classification(replace(options, benchmarks=(), all=True)) is None
    changed = replace(options, pamr=True, preset="tcl", segmenting=SegmentConfig(short_side_px=448))
    with pytest.raises(InputError, match="--preset, --pamr") as caught:
        run_if_classification(changed)
    assert "short" in caught.value.what
    assert main(["evaluate", "storybook", "--templates", "simple"]) == 2
    assert "--templates is for sets to classify" in capsys.readouterr().err


def test_data_check_counts(capsys: pytest.CaptureFixture[str]) -> None:
    COPIES["dtd"](Path("data"))
    assert main(["data", "check", "dtd", "--root", "data"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("dtd: 2 images of DTD test, split 1, 1,880 expected")
    assert out.splitlines()[3].split() == ["banded", "1", "1"]
    assert "warning: 2 images" in err
    assert err.endswith("next: pacl evaluate dtd --root data\n")
    Path("data/dtd/images/banded/b_1.jpg").write_bytes(b"text")
    assert main(["data", "check", "dtd", "--root", "data"]) == 2
    assert "is not an image" in capsys.readouterr().err
    assert main(["data", "check", "pets", "--root", "data"]) == 2
    assert "download images.tar.gz" in capsys.readouterr().err
    assert main(["data", "check", "photos", "--root", "data"]) == 2
    assert "voc20" in capsys.readouterr().err
