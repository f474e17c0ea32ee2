"""Classification data sets on the command line: files, tables, resuming."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from classification_copies import COPIES, save_picture
from pacl.cli import main
from pacl.errors import InputError
from pacl.evaluation import run
from pacl.evaluation.classification import ClassificationScores
from pacl.evaluation.plan import pick_classification

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def line(clip: Path) -> list[str]:
    return ["evaluate", "--root", "data", "--output", "out", "--model", str(clip)]


def test_scores_keeps_and_tabulates(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("pets", "imagenet-a"):
        COPIES[name](Path("data"))
    assert main([*line, "pets", "imagenet-a", "--batch-size", "1"]) == 0
    printed = capsys.readouterr()
    lines = [text.split()[0] for text in printed.out.splitlines()]
    assert lines == [
        name
        for benchmark in ("pets", "imagenet-a")
        for name in (f"{benchmark}:", "set", "-" * len(benchmark), *([benchmark] * 3))
    ]
    assert "2 images of Oxford-IIIT Pets test, where 3,669 are expected" in printed.err
    content = json.loads(next(Path("out").glob("pets_*.json")).read_text())
    assert (content["task"], content["usual_metric"]) == ("classification", "mean_per_class")
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
    assert not list(Path("out").glob(".*"))


def test_what_is_scored_is_not_scored_again(
    line: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    COPIES["dtd"](Path("data"))
    assert main([*line, "dtd", "--json"]) == 0
    first = capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationScores, "iter_scored", None)
        assert main([*line, "dtd", "--json"]) == 0
    again = capsys.readouterr()
    assert again.out == first
    assert "scored before" in again.err
    assert main([*line, "dtd", "--templates", "simple", "--json"]) == 0
    other = json.loads(capsys.readouterr().out)[0]
    assert other["settings"]["templates"] == ["a photo of a {}."]
    files = {path.name for path in Path("out").glob("dtd_*.json")}
    assert files == {json.loads(first)[0]["file"], other["file"]}  # beside each other


def test_resumes_after_an_interrupt(
    line: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        save_picture(Path(f"data/boat/{number}.png"), 40 * number)
        save_picture(Path(f"data/house/{number}.png"), 200 - 40 * number)
    line = [*line, "image-folder", "--batch-size", "2", "--json"]
    assert main(line) == 0
    whole = json.loads(capsys.readouterr().out)
    for path in Path("out").iterdir():
        path.unlink()
    monkeypatch.setattr(run, "SAVE_EVERY_S", 0.0)
    real = ClassificationScores.iter_scored

    def stop_after_four(self: ClassificationScores) -> Iterator[str]:
        for words in real(self):
            yield words
            if self.n_done == 4:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationScores, "iter_scored", stop_after_four)
        assert main(line) == 130
    assert len(list(Path("out").glob(".*.unfinished.npz"))) == 1
    capsys.readouterr()
    assert main(line) == 0
    printed = capsys.readouterr()
    assert "resumed after 4 images" in printed.err
    again = json.loads(printed.out)
    assert [again[0] | {"seconds": 0}] == [whole[0] | {"seconds": 0}]
    assert not list(Path("out").glob(".*"))


def test_storybook_needs_no_root(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pacl.datasets.classification import storybook

    monkeypatch.setattr(storybook, "N_TEST", 4)
    monkeypatch.setattr(storybook, "N_TRAIN", 2)
    assert main(["evaluate", "storybook-things", "--model", str(clip)]) == 0
    assert Path("runs/storybook-things/test/things/labels.csv").is_file()


def test_what_cannot_be_run(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "food101"]) == 2
    assert "where is food101" in capsys.readouterr().err
    COPIES["dtd"](Path("data"))
    assert main([*line, "dtd", "--patch-stride-px", "99"]) == 2
    assert "leaves gaps between patches" in capsys.readouterr().err
    assert main(["evaluate", "storybook", "--templates", "simple"]) == 2
    assert "--templates is for classification data sets" in capsys.readouterr().err


def test_names_of_sets_are_told_from_folders() -> None:
    assert pick_classification(("dtd", "pets"), Path("data")) == ["dtd", "pets"]
    assert pick_classification(("voc20", "street"), Path("data")) == []
    Path("cars/masks").mkdir(parents=True)
    assert pick_classification(("cars",), None) == []
    assert pick_classification(("cars",), Path("data")) == ["cars"]
    with pytest.raises(InputError, match="dtd is a classification data set, voc20 a segment"):
        pick_classification(("voc20", "dtd"), Path("data"))


def test_options_of_evaluate(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    COPIES["dtd"](Path("data"))
    more = ["--templates", "simple", "--patch-stride-px", "8", "--batch-size", "1", "--json"]
    assert main([*line, "dtd", *more]) == 0
    settings = json.loads(capsys.readouterr().out)[0]["settings"]
    assert settings["templates"] == ["a photo of a {}."]
    assert settings["patch_stride_px"] == 8
    assert main([*line, "dtd", "--pamr", "--preset", "tcl", "--short-side-px", "448"]) == 2
    assert "--preset, --pamr, --short-side-px would do nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["val.csv", "--words", "w.txt"], "--words would do nothing"),
        (["masks", "--labels", "auto", "--background", "probability"], "has no background rule"),
        (["masks", "--labels", "auto", "--profile"], "has no preset, PAMR or profile"),
        (["masks", "--words", "w.txt"], "--words is for --labels auto"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    line: list[str], given: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("w.txt").write_text("sky\n")
    assert main([*line, *given]) == 2
    assert says in capsys.readouterr().err


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
