"""The command line, in process: exit codes, what goes to stdout, what goes to stderr, files."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pacl
from benchmark_copies import copy_voc
from checkpoints import write_clip
from pacl import quickstart
from pacl.cli import COMMANDS, main
from pacl.cli.console import duration, table
from pacl.cli.options import Help, parse_options
from pacl.errors import EnvironmentProblem
from pacl.modeling.embedder import VisionEmbedder
from pacl.training import train

pytestmark = pytest.mark.slow

LABELS = "house,boat,snow"


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos() -> Path:
    """Three pictures; two in different folders have the same name."""
    return _draw("photos/a.png", "photos/b.png", "photos/more/a.png")


@pytest.fixture
def pairs(photos: Path) -> Path:
    rows = [f"{name},a {what} number {n}" for n in range(4) for name, what in _NAMED]
    return _write("photos/captions.csv", "file_name,caption", *rows)


@pytest.fixture
def benchmark() -> Path:
    """Two pictures with masks of two classes, and an ignored corner."""
    folder = _draw("street/images/a.png", "street/images/b.png").parent
    (folder / "masks").mkdir()
    for name in ("a", "b"):
        mask = np.zeros((32, 40), np.uint8)
        mask[:, 20:], mask[:4, :4] = 1, 255
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    _write("street/classes.json", '{"labels": ["house", "boat"], "ignore": [255]}')
    return folder


_NAMED = [("a.png", "house"), ("b.png", "boat"), ("more/a.png", "snow")]


def _draw(*names: str) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(name)
    return Path(names[0]).parent


def _write(name: str, *lines: str) -> Path:
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(name)


def _rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# Help and usage


def test_help_imports_no_torch() -> None:
    for words in ("-h", "segment -h", "train -h", "evaluate -h", "data check -h"):
        code = (
            "import sys\nfrom pacl.cli import main\n"
            f"assert main({words.split()!r}) == 0\n"
            "heavy = {'torch', 'transformers', 'numpy', 'rich', 'PIL'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        )
        child = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
        )
        assert (child.returncode, child.stderr) == (0, "")
        assert child.stdout.startswith("usage: pacl")


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(f"  {name} " in out for name in COMMANDS)
    assert main([]) == 2
    assert capsys.readouterr() == ("", out)


def test_commands_are_these() -> None:
    names = (
        "quickstart, train, segment, classify, evaluate, align, data check, "
        "data index, data convert, data cache, export, demo, doctor, models"
    )
    assert ", ".join(COMMANDS) == names


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_ends_with_two_examples_that_parse(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag in ("-h", "--help"):
        assert main([*name.split(), flag]) == 0
        out, err = capsys.readouterr()
        assert (out.splitlines()[-2:], err) == ([f"  {e}" for e in COMMANDS[name].examples], "")
    n_words = len(name.split())
    for example in COMMANDS[name].examples:
        program, *words = shlex.split(example)
        assert (program, words[:n_words]) == ("pacl", name.split())
        parsed = parse_options(
            COMMANDS[name].options, name=name, words=words[n_words:], examples=[]
        )
        assert parsed is not Help.SHOWN


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    documented = Path(sys.modules[COMMANDS[name].options.__module__].__file__ or "").read_text()
    for field in fields(COMMANDS[name].options):
        if field.name not in ("loading", "segmenting"):  # groups; their class says it
            _, _, after = documented.partition(f"\n    {field.name}:")
            assert after.split("\n", 2)[1].startswith('    """'), field.name


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"pacl {metadata.version('pacl')}\n", "")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sgment", "fix: pacl segment"),
        ("data", "commands:\n  data check"),
        ("data chek", "fix: pacl data check"),
        ("segment", "--labels"),
        ("segment photos", "--labels"),
        ("segment --labels a", "error: no images named"),
        ("segment nowhere.png --labels a", "error: no such file or folder: nowhere.png"),
        ("segment photos --labels a,a", "error: label 'a' is given twice"),
        ("segment photos --labels a --formats png,bmp", "error: unknown format 'bmp'"),
        ("segment photos --labels a --size-px 3 4 --short-side-px 5", "exclude each other"),
        ("segment photos --labels a --nonsense", "--nonsense"),
        ("segment photos --labels a --batch-size many", "--batch-size"),
        ("segment photos --labels a --model owner/none --device moon", "error: no device 'moon'"),
        ("classify --labels a", "error: no images named"),
        ("classify photos --labels a --score best", "best"),
        ("train --data nowhere --output out --lr 0", "error: lr: 0.0 is out of range"),
        ("train --data nowhere", "--output"),
        ("evaluate nowhere", "error: no folder nowhere/images"),
        ("align nowhere", "error: no folder nowhere/images"),
        ("data check nowhere", "error: no such file or folder: nowhere"),
        ("data check photos", "error: no caption table in photos"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_wrong_usage_is_one_clear_error(
    line: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("error: ") == (line != "data")
    assert not any(sign in err for sign in ("Traceback", "│", "╭"))
    assert not Path("runs").exists()


def test_error_has_the_form_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    table_path = _write("captions.csv", "img,desc", "a.png,a house")
    assert main(["data", "check", str(table_path)]) == 2
    assert capsys.readouterr().err == (
        "error: no caption column in captions.csv\n"
        "  columns found: img, desc        looked for: caption, title, text, prompt\n"
        "  fix: pacl train --data captions.csv --image-key img --caption-key desc\n"
    )


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (EnvironmentProblem("the disk is full", fix="free some"), 3, "  fix: free some"),
        (PermissionError(13, "not yours", "x"), 3, "error: PermissionError"),
        (ZeroDivisionError("one by nought"), 3, "may be a defect"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_goes_wrong_decides_the_exit_code(
    error: BaseException,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("pacl.runtime.doctor.examine", fail)
    assert main(["doctor"]) == code
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    if code == 3:
        assert main(["doctor", "--debug"]) == 3
        assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys\nfrom pacl.cli import main\nsys.exit(main(['-h']))"
    child = subprocess.run(
        [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (child.returncode, child.stderr) == (0, b"")


# Segmenting


def test_segment_writes_every_picture_under_its_own_name(
    photos: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["segment", str(photos), "photos/more", "--labels", LABELS, "--model", str(clip)]
    assert main([*line, "--formats", "png,npz,overlay,json"]) == 0
    out, err = capsys.readouterr()
    starts = [f"{photos / name}: " for name in ("a.png", "b.png", "more/a.png")]
    assert [
        text[: len(start)] for text, start in zip(out.splitlines(), starts, strict=True)
    ] == starts
    assert "training-free baseline" in err
    assert "3 images segmented into runs/segment" in err
    written = {path.name for path in Path("runs/segment").iterdir()}
    stems = ("a", "b", "more_a")
    ends = (".png", ".npz", "_overlay.png", "_areas.json")
    notes = {"classes.json", "pictures.jsonl", "run.json"}
    assert written == {stem + end for stem in stems for end in ends} | notes
    model = pacl.load(clip, device="cpu")
    for name, stem in zip(("a", "b", "more/a"), stems, strict=True):
        with Image.open(f"runs/segment/{stem}.png") as mask:
            expected = model.segment(photos / f"{name}.png", LABELS).label_map
            assert np.array_equal(np.asarray(mask), expected)


def test_segment_skips_what_is_done_and_counts_what_fails(
    photos: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write("photos/broken.png", "no picture")
    line = ["segment", "--labels", LABELS, "--model", str(clip), str(photos)]
    assert main(line) == 1
    rows = _rows("runs/segment/failures.csv")
    assert [row["file_name"] for row in rows] == ["photos/broken.png"]
    assert "not an image" in rows[0]["error"]
    before = Path("runs/segment/a.png").stat().st_mtime_ns
    capsys.readouterr()

    _draw("photos/broken.png", "photos/more/b.png")
    assert main([*line, "photos/more"]) == 0
    out, err = capsys.readouterr()
    assert "2 of 5 images are done already: skipped" in err
    assert [text.split(":")[0] for text in out.splitlines()] == [
        "photos/broken.png",
        "photos/more/a.png",
        "photos/more/b.png",
    ]
    assert not Path("runs/segment/failures.csv").exists()
    assert Path("runs/segment/a.png").stat().st_mtime_ns == before
    assert Path("runs/segment/more_b.png").is_file()

    Path("runs/segment/b_overlay.png").unlink()
    assert main(line) == 0
    assert capsys.readouterr().out.startswith("photos/b.png: ")
    assert main([*line, "--overwrite"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert len(Path("runs/segment/pictures.jsonl").read_text().splitlines()) == 5


def test_segment_goes_on_after_a_kill_in_mid_line(
    photos: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["segment", str(photos), "--labels", LABELS, "--model", str(clip)]
    assert main(line) == 0
    index = Path("runs/segment/pictures.jsonl")
    index.write_text(index.read_text()[:-9])
    capsys.readouterr()
    assert main(line) == 0
    assert capsys.readouterr().out.startswith("photos/b.png: ")
    assert {json.loads(text)["stem"] for text in index.read_text().splitlines()} == {"a", "b"}


def test_segment_never_mixes_settings(
    photos: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["segment", str(photos), "--model", str(clip), "--formats", "png"]
    assert main([*line, "--labels", LABELS]) == 0
    assert main([*line, "--labels", "car"]) == 2
    assert main([*line, "--labels", LABELS, "--background", "entropy"]) == 2
    other = write_clip(Path("other"), seed=1)
    assert main([*line[:3], str(other), "--labels", LABELS]) == 2
    err = capsys.readouterr().err
    for name in ("labels", "options", "model"):
        assert f"error: runs/segment holds results of other settings: {name}\n" in err
    assert main([*line, "--labels", LABELS, "--batch-size", "3"]) == 0
    assert main([*line, "--labels", "car", "--overwrite"]) == 0
    assert json.loads(Path("runs/segment/run.json").read_text())["labels"] == {"car": ["car"]}


def test_segment_takes_no_other_models_results_for_its_own(
    photos: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another embedder or scale is refused; a folder of an earlier pacl is continued."""
    model = pacl.load(clip, device="cpu").pacl
    model.embedder = VisionEmbedder(model.encoder.width, model.encoder.joint_width)
    run = Path("trained")
    line = ["segment", str(photos), "--model", str(run), "--formats", "png", "--labels", LABELS]
    model.save_pretrained(run)
    assert main(line) == 0
    record = Path("runs/segment/run.json")
    of_today = json.loads(record.read_text())
    of_before = {key: value for key, value in of_today.items() if key != "scoring"}
    record.write_text(json.dumps(of_before))
    capsys.readouterr()
    assert main(line) == 0
    assert "done already: skipped" in capsys.readouterr().err
    assert json.loads(record.read_text()) == of_today
    model.logit_scale += 1
    model.save_pretrained(run)
    assert main(line) == 2
    assert "results of other settings: scoring\n" in capsys.readouterr().err
    model.logit_scale -= 1
    model.embedder.skip.bias.data[0] += 1e-3
    model.save_pretrained(run)
    assert main(line) == 2
    assert "results of other settings: model\n" in capsys.readouterr().err


def test_names_that_would_meet_are_kept_apart(clip: Path) -> None:
    _draw("x/a.png", "x/a_overlay.png", "x/A.jpg", "y/x/a.png", "z/x/a.png")
    sources = ["x", "y/x", "z/x"]
    line = ["segment", *sources, "--labels", LABELS, "--model", str(clip), "--formats"]
    assert main([*line, "png,overlay"]) == 0
    lines = Path("runs/segment/pictures.jsonl").read_text().splitlines()
    assert len({json.loads(text)["stem"].casefold() for text in lines}) == 5
    assert len(list(Path("runs/segment").glob("*.png"))) == 10


def test_segment_json_is_one_object_per_picture(
    photos: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["segment", str(photos), "--labels", LABELS, "--model", str(clip), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["source"] for each in found] == ["photos/a.png", "photos/b.png"]
    assert sum(label["area"] for label in found[0]["labels"]) == pytest.approx(1)
    assert all(Path(path).is_file() for each in found for path in each["files"].values())


def test_segment_will_not_write_over_the_pictures(
    photos: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (photos / "a.png").read_bytes()
    line = ["segment", str(photos), "--labels", LABELS, "--model", str(clip)]
    assert main([*line, "--output", str(photos)]) == 2
    assert "would overwrite the image" in capsys.readouterr().err
    assert (photos / "a.png").read_bytes() == before


def test_segment_says_what_the_embedded_model_is_for(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(Path("models/storybook"))
    assert main(["segment", str(photos), "--labels", LABELS]) == 0
    assert "knows drawn Storybook scenes only" in capsys.readouterr().err


# Classifying


def test_classify_prints_a_table(
    photos: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write("photos/broken.png", "no picture")
    line = ["classify", str(photos), "--labels", LABELS, "--model", str(clip)]
    assert main(line) == 1
    out, err = capsys.readouterr()
    assert [text.split()[0] for text in out.splitlines()[2:]] == ["photos/a.png", "photos/b.png"]
    assert "error: photos/broken.png is not an image" in err
    assert "2 classified, 1 failed" in err


@pytest.mark.parametrize("score", ["pacl", "clip", "fusion"])
def test_classify_json_holds_every_probability(
    score: str, photos: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["classify", f"{photos}/a.png", "--labels", LABELS, "--model", str(clip), "--json"]
    assert main([*line, "--score", score]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["score"] == score
    assert set(found["labels"]) == set(LABELS.split(","))
    assert sum(found["labels"].values()) == pytest.approx(1, abs=1e-5)
    assert max(found["labels"], key=found["labels"].get) == found["label"]


# Training


def _train(pairs: Path, clip: Path, *more: str) -> list[str]:
    line = ["train", "--data", str(pairs), "--model", str(clip), "--output", "runs/new"]
    return [*line, "--batch-size", "3", "--precision", "fp32", *more]


def test_train_then_use_what_was_trained(
    pairs: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_train(pairs, clip, "--steps", "2")) == 0
    out, err = capsys.readouterr()
    assert out == "checkpoint: runs/new/last\n"
    assert "12 captions of 3 images" in err
    assert err.splitlines()[-1].startswith("next: pacl segment PHOTOS")
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"model": "runs/new", "kind": "PACL embedder", "of": str(clip), "steps": 2} in rows
    assert main(["segment", "photos", "--labels", LABELS, "--model", "runs/new"]) == 0
    assert "PACL: a trained embedder" in capsys.readouterr().err


def test_ctrl_c_stops_training_and_the_same_command_goes_on(
    pairs: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = train.retrieval_accuracy
    n_calls = 0

    def interrupt_in_the_second_step(*args: Any, **options: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return measure(*args, **options)

    monkeypatch.setattr(train, "retrieval_accuracy", interrupt_in_the_second_step)
    assert main(_train(pairs, clip, "--steps", "4")) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "stopped after step 2 of 4" in err
    assert "run the same command again to resume from there" in err
    assert "Traceback" not in err
    assert main(_train(pairs, clip, "--steps", "4")) == 0
    assert n_calls == 4


def test_train_refuses_another_runs_directory(
    pairs: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_train(pairs, clip, "--steps", "1")) == 0
    capsys.readouterr()
    assert main(_train(pairs, clip, "--steps", "1", "--lr", "0.1")) == 2
    assert "error: runs/new holds a run with other settings\n  lr: " in capsys.readouterr().err


def test_train_reports_progress_on_a_terminal(
    pairs: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    assert main(_train(pairs, clip, "--steps", "2")) == 0
    out, err = capsys.readouterr()
    assert out == "checkpoint: runs/new/last\n"
    for word in ("2/2", "loss", "accuracy", "images/s", "left"):
        assert word in err


def test_quickstart_prints_its_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "method": "PACL",
        "miou": 0.5,
        "pixel_accuracy": 0.75,
        "patch_accuracy_all": 0.625,
        "patch_accuracy_present": 0.875,
        "classification_top1": 0.25,
    }
    report = {
        "rows": [row, row | {"method": "supervised linear probe", "classification_top1": None}],
        "coherence_auroc": 0.9,
        "compositions": {"seen_iou": 0.4, "heldout_iou": 0.3, "relative_loss": 0.25},
        "seconds": {"draw": 3.0},
        "files": ["runs/q/report.json"],
    }
    configs = []

    def run(config: quickstart.QuickstartConfig, *, on_stage: quickstart.OnStage) -> Any:
        configs.append(config)
        on_stage("draw", 1, 2)
        return report

    monkeypatch.setattr(quickstart, "run_quickstart", run)
    assert main(["quickstart", "--output", "runs/q", "--n-train", "7"]) == 0
    assert configs == [quickstart.QuickstartConfig(output=Path("runs/q"), n_train=7)]
    out, err = capsys.readouterr()
    cells = [line.split() for line in out.splitlines()]
    assert cells[2] == ["PACL", "0.500", "0.750", "0.625", "0.875", "0.250"]
    assert cells[3][-1] == "-"
    assert "wrote runs/q/report.json" in err
    assert main(["quickstart", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report


# Scoring


def test_evaluate_prints_iou_and_keeps_the_protocol(
    benchmark: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["evaluate", str(benchmark), "--model", str(clip), "--short-side-px", "64"]
    assert main(line) == 0
    out, err = capsys.readouterr()
    assert out.startswith("own settings on street: ")
    names = [text.split("  ")[0] for text in out.splitlines()]
    sizes = [f"mIoU, {size} components" for size in ("small", "medium", "large")]
    measures = ["mIoU", "pixel accuracy", "mean accuracy", "classes of IoU 0", *sizes]
    assert names[4:] == ["house", "boat", *measures]
    [path] = Path("runs/evaluate").glob("*.json")
    assert f"wrote {path}" in err
    assert "mean nothing" not in err
    content = json.loads(path.read_text())
    assert content["protocol"]["short_side_px"] == 64
    assert (content["model"], content["n_images"]) == (str(clip), 2)
    assert out.splitlines()[6].split()[-1] == f"{content['miou']:.3f}"
    assert main([*line, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed | {"seconds": 0} == content | {"seconds": 0}


def test_evaluate_says_when_the_numbers_mean_nothing(
    benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(Path("models/storybook"))
    line = ["align", str(benchmark), "--n-pairs", "50", "--n-resamples", "10"]
    for words in (["evaluate", str(benchmark)], line):
        assert main(words) == 0
        assert "these numbers mean nothing yet" in capsys.readouterr().err
    _write("street/storybook.json", "{}")
    for words in (["evaluate", str(benchmark), "--output", "drawn"], line):
        assert main(words) == 0
    assert "mean nothing" not in capsys.readouterr().err


def test_align_prints_measures_with_intervals_and_a_plot(
    benchmark: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["align", str(benchmark), "--model", str(clip), "--n-pairs", "50"]
    assert main([*line, "--n-resamples", "20"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 5
    assert out[0].split()[-3:] == ["embedded", "95%", "interval"]
    plot = next(Path("runs/align").glob("*.png"))
    with Image.open(plot) as picture:
        assert picture.width == picture.height
    assert main([*line, "--json", "--n-resamples", "0"]) == 0
    content = json.loads(capsys.readouterr().out)
    embedded = content["embedded"]
    low, high = (embedded[f"patch_accuracy_{of}"]["value"] for of in ("all", "present"))
    assert 0 <= low <= high <= 1
    assert content == json.loads(next(Path("runs/align").glob("*.json")).read_text())


def test_align_on_a_benchmark(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy_voc(Path("data"))
    line = ["align", "voc20", "--root", "data", "--model", str(clip), "--n-pairs", "50"]
    assert main([*line, "--n-resamples", "5"]) == 0
    assert "3 images of Pascal VOC 2012 val, where 1449" in capsys.readouterr().err
    assert [path.suffix for path in sorted(Path("runs/align").glob("voc20_*"))] == [".json", ".png"]
    assert main(line[:2]) == 2
    assert "voc20 needs --root" in capsys.readouterr().err
    assert main([*line, "--labels", "a,b"]) == 2
    assert main([*line[:-1], "0"]) == 2
    assert main([*line, "--n-resamples", "-1"]) == 2


@pytest.mark.parametrize("command", ["evaluate", "align"])
def test_storybook_is_drawn_on_demand(
    command: str, benchmark: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def draw(directory: Path, **settings: Any) -> dict[str, Path]:
        settings.pop("on_progress")(300, 300)
        asked[directory] = settings
        return {"test": benchmark}

    monkeypatch.setattr("pacl.datasets.storybook.draw_storybook", draw)
    assert main([command, "storybook", "--model", str(clip)]) == 0
    assert asked == {Path("runs/storybook"): {"counts": {"test": 300}}}


# What is here


def test_data_check_counts_and_gives_reasons(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", "photos"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("12 captions of 3 images")
    assert err == "next: pacl train --data photos --output runs/mine\n"
    with pairs.open("a") as file:
        file.write("nowhere.png,a house\na.png,\n")
    assert main(["data", "check", str(pairs)]) == 1
    out = capsys.readouterr().out
    assert "skipped 2 of 14 rows: 1 image file missing, 1 empty caption" in out
    assert "line 14: no file photos/nowhere.png" in out


def test_data_check_reads_masks(benchmark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(benchmark)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 images with masks; ignored ids: 255\n")
    assert out.splitlines()[-2].split() == ["0", "house", "2", "49.4%"]
    Image.fromarray(np.full((32, 40), 7, np.uint8)).save(benchmark / "masks" / "b.png")
    assert main(["data", "check", str(benchmark)]) == 2
    assert "ids that the folder street does not have: 7" in capsys.readouterr().err


def test_doctor_prints_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert any(line.startswith("ok    torch ") for line in out.splitlines())
    assert err == "pacl can run here\n"
    assert main(["doctor", "--json"]) == 0
    assert {"name", "status", "value", "fix"} == set(json.loads(capsys.readouterr().out)[0])


def test_models_lists_only_models(capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(Path("models/storybook"), with_weights=False)
    write_clip(Path("runs/new/last"), with_weights=False)
    Path("runs/other/last").mkdir(parents=True)
    _write("runs/other/last/config.json", "not json")
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["storybook", "CLIP"], ["runs/new", "CLIP"]]


# Words on the screen


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.6, "8 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_table_aligns_numbers_to_the_right() -> None:
    assert table(["class", "IoU"], [["sky", "0.5"], ["building", "-"]]).splitlines() == [
        "class     IoU",
        "--------  ---",
        "sky       0.5",
        "building    -",
    ]
