"""pacl evaluate and pacl data check on the standard benchmarks, in process, with a tiny CLIP."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark_copies import copy_voc, save_image, save_mask
from foreign_towers import write_vit
from pacl.api import Model
from pacl.cli import main
from pacl.data.images import open_mask
from pacl.evaluation import presets

pytestmark = pytest.mark.slow

LINE = ["evaluate", "voc20", "--root", "data", "--preset", "restricted", "--model"]


@pytest.fixture(autouse=True)
def _voc_in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copy_voc(Path("data"))


def masks() -> list[Path]:
    return sorted(Path("data/VOCdevkit/VOC2012/SegmentationClass").iterdir())


def test_a_benchmark_under_a_preset(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LINE, str(clip), "--profile", "--output", "out"]) == 0
    out, err = capsys.readouterr()
    preset = presets.build_preset("restricted", "voc20")
    assert out.startswith(f"restricted on voc20 ({preset.digest}): ")
    assert "NOT COMPARABLE" in out
    assert out.index("NOT COMPARABLE") < out.index("mIoU")
    assert "3 images of Pascal VOC 2012 val, where 1449 are expected" in err
    assert "everything but the encoder: " in err
    [path] = Path("out").glob("*.json")
    assert path.name.startswith("voc20_restricted_")
    content = json.loads(path.read_text())
    protocol = content["protocol"]
    assert protocol.items() >= json.loads(json.dumps(preset.values())).items()
    assert protocol["pamr"] is None
    assert protocol["words"][4] == ["bottle"]
    assert (content["hash"], content["comparable"]) == (protocol["hash"], False)
    assert content["preset_hash"] == preset.digest
    assert content["resolved"].keys() == {
        "short_side_px", "patch_stride_px", "background_level", "logit_scale"
    }  # fmt: skip
    assert (content["resolved"]["short_side_px"], content["resolved"]["patch_stride_px"]) == (32, 4)
    assert content["resolved"]["logit_scale"] > 1
    assert f"PAMR: {protocol['hash']}\n" in out
    assert len(content["iou"]) == 20
    assert list(content["rows"]) == ["without PAMR"]
    assert content["rows"]["without PAMR"]["miou"] == content["miou"]
    assert list(content["miou_by_size"]) == ["small", "medium", "large"]
    assert 0 <= content["n_zero_iou"] <= content["n_present"] <= 20
    assert f"classes of IoU 0 {content['n_zero_iou']} of {content['n_present']}" in " ".join(
        out.split()
    )
    assert "mIoU, large components" in out
    assert {"encoder", "labelling", "metrics", "reading (threads)"} <= set(
        content["profile"]["seconds"]
    )
    assert 0 < content["profile"]["share_besides_encoder"] < 1
    with Image.open(content["pictures"]["best"]["file"]) as picture:
        assert picture.width > picture.height
    assert not list(Path("out").glob(".*"))  # no state is left


def test_ours_stand_beside_published_figures(clip: Path) -> None:
    Path("out").mkdir()
    Path("out/other.json").write_text('{"benchmark": "ade150", "miou": 0.5}')  # not of evaluate
    Path("out/broken.json").write_text("{")
    assert main([*LINE, str(clip), "--pamr", "--output", "out"]) == 0
    header, _, *lines = [
        line for line in Path("out/results.md").read_text().splitlines() if line.startswith("|")
    ]
    assert [cell.strip() for cell in header.split("|")][4:5] == ["voc20"]
    assert "voc21" not in header  # not evaluated
    ours = [line for line in lines if "measured, " in line]
    assert len(ours) == 2
    assert all("NOT COMPARABLE" in line for line in ours)
    assert "without PAMR" in ours[0]
    assert any("| SCLIP " in line and "81.54" in line and "README" in line for line in lines)
    with Path("out/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["benchmark"] for row in rows} == {"voc20"}
    assert [row["is_ours"] for row in rows[:3]] == ["True", "True", "False"]
    assert all(row["source"] and row["protocol"] for row in rows)
    assert " of " in rows[0]["classes of IoU 0"]
    assert rows[0]["mIoU, large components"]
    assert not rows[2]["classes of IoU 0"]
    assert "## Beside the mIoU" in Path("out/results.md").read_text()

    line = ["evaluate", "voc21", "--root", "data", "--preset", "paper", "--model", str(clip)]
    assert main([*line, "--baseline", "naclip", "--output", "out"]) == 0
    header = Path("out/results.md").read_text().split("\n|")[1]
    cells = [cell.strip() for cell in header.split("|")]
    assert [cell for cell in cells if cell.startswith("voc")] == ["voc20", "voc21"]
    text = Path("out/results.md").read_text()
    assert "**NACLIP**" in text
    assert "- restricted on voc20: not published, ours: short_side_px, " in text
    assert "- paper on voc21: " in text
    assert "entropy above 1.5" in text


def test_proxyclip_takes_a_second_tower(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("Dinov2Model", "Dinov2WithRegistersModel"):
        write_vit(name, Path(name))
    for folder, colour in (("images", "RGB"), ("masks", "L")):
        Path("street", folder).mkdir(parents=True)
        Image.new(colour, (70, 56)).save(f"street/{folder}/0.png")
    line = ["evaluate", "street", "--labels", "cat,sky", "--model", str(clip), "--output", "out"]
    proxies = [["--proxy-tower", name] for name in ("Dinov2Model", "Dinov2WithRegistersModel")]
    assert main([*line, "--baseline", "proxyclip"]) == 2
    assert main([*line, "--baseline", "naclip", *proxies[0]]) == 2
    assert capsys.readouterr().err.count("fix: --baseline proxyclip --proxy-tower facebook/") == 2
    line += ["--baseline", "proxyclip"]
    assert main([*line, *proxies[0]]) == 0
    assert main([*line, *proxies[1]]) == 0
    assert "scored before" not in capsys.readouterr().err
    assert main([*line, *proxies[0]]) == 0
    assert "scored before" in capsys.readouterr().err
    contents = [json.loads(path.read_text()) for path in sorted(Path("out").glob("*.json"))]
    assert [each["proxy"] for each in contents] == ["Dinov2Model", "Dinov2WithRegistersModel"]
    assert len({each["fingerprint"] for each in contents}) == 2
    text = Path("out/results.md").read_text()
    assert "| **ProxyCLIP** |" in text
    assert "none, proxy Dinov2Model |" in text


def test_a_wrong_conversion_is_refused(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in masks():
        mask = open_mask(path)
        save_mask(path, np.where(mask == 0, 255, np.where(mask == 255, 255, mask - 1)))
    assert main([*LINE, str(clip)]) == 2
    out, err = capsys.readouterr()
    assert "already reduced" in err
    assert "fix: put back the original" in err
    assert out == ""
    assert not Path("runs").exists()
    assert main(["evaluate", "--all", "--root", "data", "--model", str(clip)]) == 2
    err = capsys.readouterr().err
    assert "voc20 is refused: these VOC masks are already reduced" in err
    assert "no benchmark under data can be evaluated" in err


def test_all_names_what_it_skips(
    clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(presets.PRESETS, "sclip", presets.PRESETS["restricted"])  # a quick one
    assert main(["evaluate", "--all", "--root", "data", "--model", str(clip), "--json"]) == 0
    out, err = capsys.readouterr()
    contents = json.loads(out)
    assert [content["benchmark"] for content in contents] == ["voc20", "voc21"]
    skipped = "context59, context60, coco-object, coco-stuff171, ade150, cityscapes"
    assert f"not under data, skipped: {skipped}" in err
    assert len(list(Path("runs/evaluate").glob("*.json"))) == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("evaluate", "error: no benchmark named"),
        ("evaluate voc20 --all --root data", "--all and names of benchmarks exclude"),
        ("evaluate voc20", "error: voc20 needs --root"),
        ("evaluate --all", "error: --all needs --root"),
        ("evaluate voc20 --root nowhere", "error: no folder nowhere"),
        ("evaluate voc20 --root data --labels a", "voc20 has class names of its own"),
        (
            "evaluate voc20 --root data --preset tcl --window-px 32 --logit-scale 3",
            "error: the preset tcl decides --window-px, --logit-scale",
        ),
        ("evaluate voc20 --root data --preset mmseg", "--preset"),
        ("evaluate voc20 --root data --baseline clip --embedder x", "exclude each other"),
        (
            "evaluate voc20 dtd --root data",
            "dtd is a classification data set, voc20 a segm",
        ),
        (
            "evaluate dtd --root data --preset tcl",
            "dtd is a classification data set: --preset",
        ),
        (
            "evaluate dtd --root data --window-px 8",
            "dtd is a classification data set: --window-px",
        ),
        ("evaluate dtd --root nowhere", "nowhere"),
        ("data check voc20", "error: voc20 needs --root"),
    ],
)
def test_wrong_usage_is_one_clear_error(
    line: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("error: ") == 1
    assert not Path("runs").exists()


def test_settings_of_ones_own_on_a_benchmark(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["evaluate", "voc21", "--root", "data", "--short-side-px", "32", "--batch-size", "2"]
    assert main([*line, "--model", str(clip)]) == 0
    assert capsys.readouterr().out.startswith("own settings on voc21: ")
    [path] = Path("runs/evaluate").glob("*.json")
    assert path.name.startswith("voc21_own_")
    content = json.loads(path.read_text())
    assert (content["preset"], content["comparable"]) == (None, False)
    assert content["protocol"]["short_side_px"] == 32
    assert "NOT COMPARABLE" in Path("runs/evaluate/results.md").read_text()


def test_data_check_of_a_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "voc21", "--root", "data", "--all-masks"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("voc21: 3 images with masks, 1,449 expected\n")
    assert any(line.startswith("tv monitor ") for line in out.splitlines())
    assert "warning: 3 images" in err
    assert "next: pacl evaluate voc21 --root data" in err
    masks()[0].unlink()
    assert main(["data", "check", "voc21", "--root", "data"]) == 2
    err = capsys.readouterr().err
    assert "error: 1 of 6 files are missing" in err
    assert "fix: download" in err
    assert main(["data", "check", "ade150", "--root", "data"]) == 2
    assert "ADEChallengeData2016.zip" in capsys.readouterr().err


def test_what_is_scored_is_not_scored_again(
    clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["evaluate", "voc20", "voc21", "--root", "data", "--preset", "tcl", "--output", "out"]
    assert main([*line, "--model", str(clip), "--json"]) == 0
    first = capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr("pacl.evaluation.scoreboard.SegmentationScores.iter_scored", None)
        assert main([*line, "--model", str(clip), "--json"]) == 0
    again = capsys.readouterr()
    assert again.err.count("scored before, in ") == 2
    assert again.out == first
    assert (
        main([*line[:2], *line[3:], "--model", str(clip), "--pamr", "--short-side-px", "64"]) == 2
    )


def test_a_folder_called_like_a_benchmark_is_none(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path("data/VOCdevkit/VOC2012")
    for name in ("images", "masks"):
        Path("mine/voc20", name).mkdir(parents=True)
    for path in (source / "JPEGImages").iterdir():
        with Image.open(path) as image:
            image.convert("RGB").save(f"mine/voc20/images/{path.stem}.png")
            Image.new("L", image.size, 1).save(f"mine/voc20/masks/{path.stem}.png")
    line = ["--model", str(clip), "--labels", "sky,road", "--output", "out"]
    assert main(["evaluate", "mine/voc20", *line]) == 0
    assert capsys.readouterr().out.startswith("own settings on folder voc20: ")
    table = Path("out/results.md").read_text()
    assert "| folder voc20 |" in table
    assert "SCLIP" not in table
    assert main(["evaluate", "folder", "--root", "mine/voc20", *line]) == 0
    assert "scored before" in capsys.readouterr().err
    assert main(["data", "check", "folder", "--root", "mine/voc20", "--labels", "sky,road"]) == 0


def test_scores_of_two_settings_stand_beside_each_other(clip: Path) -> None:
    line = ["evaluate", "voc20", "--root", "data", "--model", str(clip), "--output", "out"]
    assert main([*line, "--short-side-px", "32"]) == 0
    assert main([*line, "--short-side-px", "64"]) == 0
    ours = [each for each in Path("out/results.md").read_text().splitlines() if "measured" in each]
    assert len([each for each in ours if each.startswith("|")]) == 2


def test_two_embedders_are_two_lines(clip: Path, tmp_path: Path, model: Model) -> None:
    line = ["evaluate", "voc20", "--root", "data", "--model", str(clip), "--output", "out"]
    for name in ("one", "other"):
        model.pacl.save_pretrained(tmp_path / name)
        assert main([*line, "--embedder", str(tmp_path / name)]) == 0
    ours = [each for each in Path("out/results.md").read_text().splitlines() if "measured" in each]
    lines = [each for each in ours if each.startswith("|")]
    assert len(lines) == 2
    assert "trained embedder" in lines[0]
    assert lines[0] != lines[1]


def test_what_the_drawn_backbone_scores_is_marked(storybook_model: Path) -> None:
    line = ["evaluate", "voc20", "--root", "data", "--preset", "tcl", "--output", "out"]
    assert main([*line, "--model", str(storybook_model)]) == 0
    [ours] = [
        each
        for each in Path("out/results.md").read_text().splitlines()
        if each.startswith("| **") and "without PAMR" in each
    ]
    assert "NOT COMPARABLE" in ours
    assert "means nothing: the backbone has seen drawn scenes only" in ours


@pytest.mark.parametrize("command", ["data check", "evaluate", "align"])
def test_more_classes_than_8_bits_hold(
    command: str, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_image(Path("mine/images/a.png"), (16, 16))
    save_mask(Path("mine/masks/a.png"), np.arange(256).reshape(16, 16))
    Path("mine/classes.txt").write_text("\n".join(f"class {k}" for k in range(300)))
    model = [] if command == "data check" else ["--model", str(clip)]
    assert main([*command.split(), "mine", *model]) == 2
    assert "300 classes do not fit the 8 bits of mine/masks/a.png" in capsys.readouterr().err
