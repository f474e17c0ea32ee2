"""Memory of `pacl segment` on a long stream: thousands of images, or minutes of video.

    python benchmarks/stream_memory.py images --n 20000 --work /tmp/stream
    python benchmarks/stream_memory.py video --n 18000 --work /tmp/stream

Images: three of them are broken; the command is killed halfway and run again, then two processes
share the same images by --shard. Prints JSON: the resident memory of each run after 200 images and
at most, exit codes, and whether every image was done once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

LABELS = "sky,grass,sea,sand,house,tree,boat,sun"
SETTLED = 200


def draw_images(folder: Path, n_images: int) -> None:
    """Write small images of noise in eight bands; three are no images."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(n_images):
        pixels = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
        Image.fromarray(pixels).save(folder / f"{k:06d}.jpg")
    for k in (n_images // 7, n_images // 2, n_images - 2):
        (folder / f"{k:06d}.jpg").write_bytes(b"broken")


def draw_film(path: Path, n_frames: int) -> None:
    """Write a video of 30 frames per second whose bands move."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    bands = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 256, 192, "yuv420p"
        for k in range(n_frames):
            pixels = np.roll(bands.repeat(16, 0).repeat(16, 1), k, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def segment(source: str, output: Path, *more: str, stop_after: int | None = None) -> dict:
    """Run the command and watch its memory; kill it after some images if asked."""
    line = [sys.executable, "-m", "pacl", "segment", source, "--labels", LABELS,
            "--output", str(output), "--formats", "png,coco", *more]  # fmt: skip
    index, samples = output / "pictures.jsonl", []
    n_before = _count(index)
    with (output.parent / f"{output.name}.log").open("ab") as log:
        child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=log)
        while child.poll() is None:
            samples.append((_count(index) - n_before, _resident_mib(child.pid)))
            if stop_after is not None and samples[-1][0] >= stop_after:
                child.send_signal(signal.SIGKILL)
                child.wait()
                break
            time.sleep(2)
    settled = [mib for done, mib in samples if done >= SETTLED and mib]
    return {
        "exit code": child.returncode,
        "images done": _count(index) - n_before,
        "MiB after 200": round(settled[0]) if settled else None,
        "MiB at most after": round(max(settled)) if settled else None,
        "growth": round(max(settled) / settled[0] - 1, 3) if settled else None,
    }


def _count(index: Path) -> int:
    return index.read_bytes().count(b"\n") if index.is_file() else 0


def _resident_mib(pid: int) -> float:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0.0
    return int(pages) * 4096 / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["images", "video"])
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--work", type=Path, required=True, help="a new folder for all files")
    args = parser.parse_args()
    if args.kind == "video":
        film = args.work / "film.mp4"
        draw_film(film, args.n)
        print(json.dumps({"video": segment(str(film), args.work / "out")}, indent=1))
        return
    draw_images(args.work / "images", args.n)
    source, whole = str(args.work / "images"), args.work / "whole"
    report = {
        "killed": segment(source, whole, stop_after=args.n // 2),
        "restarted": segment(source, whole),
        "shard 0/2": segment(source, args.work / "both", "--shard", "0/2"),
        "shard 1/2": segment(source, args.work / "both", "--shard", "1/2"),
    }
    lines = (whole / "pictures.jsonl").read_text(encoding="utf-8").splitlines()
    sources = [json.loads(line)["source"] for line in lines]
    same = all(
        (whole / path.name).read_bytes() == path.read_bytes()
        for path in (args.work / "both").glob("*.png")
    )
    report["whole"] = {
        "lines": len(sources),
        "images": len(set(sources)),
        "masks": len(list(whole.glob("*.png"))),
        "failures": (whole / "failures.csv").read_text(encoding="utf-8").count(",\""),
        "images in coco.json": len(json.loads((whole / "coco.json").read_text())["images"]),
        "shards equal one process": same
        and (whole / "coco.json").read_bytes() == (args.work / "both" / "coco.json").read_bytes(),
    }  # fmt: skip
    print(json.dumps(report, indent=1))
    shutil.rmtree(args.work / "images")


if __name__ == "__main__":
    main()
