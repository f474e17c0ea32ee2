"""A cluster of processes writes what one process writes, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from PIL import Image

from pacl.cli import main
from pacl.datasets.storybook import draw_scene
from pacl.results.folder import FAILURES, INDEX

pytestmark = pytest.mark.slow
pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")

from pacl.deploy.ray_data import part_size  # noqa: E402

N_SCENES = 40
LABELS = "sky,grass,pine tree,road"


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    folder, extra = tmp_path / "photos", tmp_path / "extra"
    folder.mkdir()
    extra.mkdir()
    for k in range(N_SCENES):
        Image.fromarray(draw_scene("test", k % 7).image).save(folder / f"{k:03}.png")
    (folder / "020.png").write_bytes(b"no image")
    Image.fromarray(draw_scene("test", 1).image).save(extra / "001.png")
    with tarfile.open(tmp_path / "more.tar", "w") as archive:
        archive.add(extra / "001.png", "001.png")
    return [str(folder), str(tmp_path / "more.tar")]


def start_line(photos: list[str], output: Path) -> list[str]:
    command = ["segment", *photos, "--labels", LABELS, "--output", str(output)]
    return [*command, "--ray", "--actors", "2", "--device", "cpu"]


def start(photos: list[str], output: Path, mark: str, *more: str) -> subprocess.Popen[bytes]:
    command = [*start_line(photos, output), *more]
    environment = os.environ | {"PACL_TEST": mark, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "pacl", *command], env=environment)


def kill_an_actor(mark: str) -> None:
    """Kill one worker process of this test's driver, which alone has the mark."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_actor = (process / "cmdline").read_bytes().startswith(b"ray::MapWorker")
            is_ours = f"PACL_TEST={mark}\0".encode() in (process / "environ").read_bytes()
        except OSError:
            continue
        if is_actor and is_ours:
            os.kill(int(process.name), signal.SIGKILL)
            return
    pytest.fail("no actor is there")


def written(folder: Path) -> dict[str, bytes]:
    """Names and bytes, without what a killed worker was about to write under a name of its own."""
    found = (path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    return {path.name: path.read_bytes() for path in found}


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
def test_cluster_writes_what_one_process_writes(tmp_path: Path, photos: list[str]) -> None:
    one, many, mark = tmp_path / "one", tmp_path / "many", tmp_path.name
    assert main(["segment", *photos, "--labels", LABELS, "--output", str(one)]) == 1
    driver = start(photos, many, mark)
    while not [*many.glob("areas/*.parquet")]:
        assert driver.poll() is None
        time.sleep(0.05)
    kill_an_actor(mark)
    assert driver.wait() == 1
    assert written(many) == written(one)
    assert "020.png" in (many / FAILURES).read_text()
    assert len((many / INDEX).read_text().splitlines()) == N_SCENES

    parts = {path: path.stat().st_mtime_ns for path in many.glob("areas/*.parquet")}
    rows = [row for path in parts for row in pq.read_table(path).to_pylist()]
    assert len(rows) == N_SCENES * 4 + 1
    assert sum(row["area"] for row in rows if not row["error"]) == pytest.approx(N_SCENES)

    lost = next(path for path in parts if None in pq.read_table(path)["label"].to_pylist())
    lost.unlink()
    (tmp_path / "photos" / "020.png").write_bytes((tmp_path / "photos" / "021.png").read_bytes())
    assert start(photos, many, mark).wait() == 0
    assert not (many / FAILURES).exists()
    Image.fromarray(draw_scene("test", 2).image).save(tmp_path / "photos" / "one more.png")
    assert start(photos, many, mark, "--formats", "png,overlay,json,npz").wait() == 0
    assert len([*many.glob("*.npz")]) == N_SCENES + 2, "of all images, though their parts are done"
    rows = [row for path in many.glob("areas/*.parquet") for row in pq.read_table(path).to_pylist()]
    assert sum(row["area"] for row in rows if not row["error"]) == pytest.approx(N_SCENES + 2)
    kept = [path for path in parts if path != lost]
    assert all(path.stat().st_mtime_ns == parts[path] for path in kept)


def test_results_of_a_killed_run_are_not_taken_for_others(
    tmp_path: Path, photos: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    many = tmp_path / "many"
    driver = start(photos, many, tmp_path.name)
    while not [*many.glob("areas/*.parquet")]:
        assert driver.poll() is None
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    other = [*start_line(photos, many)]
    other[other.index(LABELS)] = "tent,sea"
    assert main(other) == 2
    assert "holds results of other settings: labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--json"], "--json would do nothing"),
        (["--shard", "0/2"], "--shard would do nothing"),
        (["--every", "3"], "--every would do nothing"),
        (["--on-error", "stop"], "--on-error would do nothing"),
        (["--stability", "0.5"], "--stability would do nothing"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    more: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*start_line(["photos"], tmp_path), *more]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("n_images", "n_actors", "batch_size", "size"),
    [
        (2000, 2, 8, 248),
        (10**6, 50, 8, 256),
        (40, 2, 8, 8),
        (3, 2, 8, 8),
        (9, 1, 1, 2),
        (10**4, 2, 300, 300),
    ],
)
def test_parts_are_whole_batches(n_images: int, n_actors: int, batch_size: int, size: int) -> None:
    assert part_size(n_images, n_actors=n_actors, batch_size=batch_size) == size
