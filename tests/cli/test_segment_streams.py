"""pacl segment on streams: shards, interrupts, videos, stopping at an error, whole-folder files."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacl.cli import main
from pacl.cli.console import Pace

pytestmark = pytest.mark.slow

LABELS = "house,boat,snow"
WHOLE = "png,masks,coco,panoptic,cvat,label-studio,ultralytics"


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve images; pairs in different folders have the same name."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for k in range(12):
        path = Path("photos") / f"in{k % 2}" / f"{k // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)
    return Path("photos")


def _line(clip: Path, output: str, *more: str) -> list[str]:
    return ["segment", "photos/**/*.png", "--labels", LABELS, "--model", str(clip),
            "--output", output, "--formats", WHOLE, "--batch-size", "3", *more]  # fmt: skip


def _content(folder: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as file:
                found[path.name] = {name: file.read(name) for name in file.namelist()}
        elif path.name == "pictures.jsonl":
            found[path.name] = sorted(path.read_text().splitlines())
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def test_two_shards_are_the_union_of_one_process(clip: Path) -> None:
    assert main(_line(clip, "one")) == 0
    assert main(_line(clip, "both", "--shard", "1/2")) == 0
    assert len(list(Path("both").glob("*.png"))) == 6
    assert main(_line(clip, "both", "--shard", "0/2")) == 0
    assert _content("both") == _content("one")


def test_an_interrupted_run_is_completed_without_loss_or_repetition(
    clip: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "in0" / "2.png").write_bytes(b"broken")
    assert main(_line(clip, "whole")) == 1
    from pacl.results.folder import OutputFolder

    n_saved, save = 0, OutputFolder.save

    def save_five(folder: OutputFolder, *args: object) -> object:
        nonlocal n_saved
        if n_saved == 5:
            raise KeyboardInterrupt
        n_saved += 1
        return save(folder, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(OutputFolder, "save", save_five)
    assert main(_line(clip, "cut")) == 130
    monkeypatch.setattr(OutputFolder, "save", save)
    capsys.readouterr()
    assert main(_line(clip, "cut", "--json")) == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 7
    assert [line["source"] for line in lines if "error" in line] == ["photos/in0/2.png"]
    assert "5 of 12 images are done already" in err
    assert _content("cut") == _content("whole")
    assert main(_line(clip, "cut", "--on-error", "stop")) == 1
    assert capsys.readouterr().out == ""


def test_on_error_stop_ends_at_the_first_failure(
    clip: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "in0" / "1.png").write_bytes(b"broken")
    assert main(_line(clip, "out", "--on-error", "stop")) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1
    with Path("out/failures.csv").open(encoding="utf-8", newline="") as file:
        assert [row["file_name"] for row in csv.DictReader(file)] == ["photos/in0/1.png"]


@pytest.mark.parametrize("shard", ["2/2", "1", "a/b", "-1/2"])
def test_a_wrong_shard_is_refused(
    shard: str, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_line(clip, "out", f"--shard={shard}")) == 2
    assert "is not I/N" in capsys.readouterr().err


def test_polygons_are_an_option_of_coco(clip: Path) -> None:
    assert main([*_line(clip, "out"), "--polygons", "--formats", "coco"]) == 0
    content = json.loads(Path("out/coco-polygons.json").read_text())
    assert isinstance(content["annotations"][0]["segmentation"], list)


def _write_film(path: Path, n_frames: int = 9) -> None:
    av = pytest.importorskip("av")
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(n_frames):
            pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def test_a_video_is_segmented_frame_by_frame_and_held_stable(clip: Path) -> None:
    _write_film(Path("film.mp4"))
    line = ["segment", "film.mp4", "--labels", LABELS, "--model", str(clip), "--formats", "npz"]
    assert main([*line, "--every", "2", "--output", "every"]) == 0
    stems = [path.stem for path in sorted(Path("every").glob("*.npz"))]
    assert stems[:2] == ["film_000000_00h00m00s000", "film_000002_00h00m00s200"]
    assert len(stems) == 5
    assert main([*line, "--output", "each"]) == 0
    assert main([*line, "--output", "held", "--stability", "0.6", "--batch-size", "2"]) == 0
    each, held = ([_scores(path) for path in sorted(Path(name).glob("*.npz"))]
                  for name in ("each", "held"))  # fmt: skip
    expected = each[0]
    for now, found in zip(each, held, strict=True):
        expected = found if now is each[0] else 0.6 * expected + 0.4 * now
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(held[0], each[0], atol=1e-5)
    sorted(Path("held").glob("*.npz"))[4].unlink()
    assert main([*line, "--output", "held", "--stability", "0.6", "--batch-size", "4"]) == 0
    again = [_scores(path) for path in sorted(Path("held").glob("*.npz"))]
    np.testing.assert_allclose(again, held, atol=1e-5)


def test_auto_keeps_its_words_and_resumes_alike(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("words.txt").write_text("house\nboat\nsnow\nred car\n", encoding="utf-8")
    line = [*_line(clip, "auto"), "--labels", "auto", "--words", "words.txt"]
    line += ["--formats", "png,json,coco"]
    assert main(line) == 0
    assert "choosing from 4 words" in capsys.readouterr().err
    before = _content("auto")
    for name in ("1.png", "in1_2.png"):
        (Path("auto") / name).unlink()
    assert main(line) == 0
    assert _content("auto") == before
    areas = json.loads(Path("auto/1_areas.json").read_text())
    assert 1 <= len(areas["labels"]) <= 4
    assert main([*_line(clip, "other"), "--words", "words.txt"]) == 2
    assert main([*line, "--background-words", "wall"]) == 2


def _scores(path: Path) -> np.ndarray:
    with np.load(path) as arrays:
        return arrays["class_scores"]


def test_pace_counts_from_the_first_that_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 10.0, 30.0])
    monkeypatch.setattr("pacl.cli.console.time.monotonic", lambda: next(seconds))
    pace = Pace()
    assert pace.describe(100, 500) == ""
    assert pace.describe(120, 500) == "2.0/s, 3 min 10 s left"
    assert pace.describe(103, None) == "10 s each"
