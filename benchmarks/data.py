"""Pairs in tars at size: indexing, order, memory, and throughput beside bare decoding.

    python benchmarks/data.py --folder /tmp/pairs --samples 1000000 --json out.json

Writes the tars into the folder once: drawn 224-pixel JPEGs of about 8 KB, or with --side smaller
ones, each with a caption. What is measured:

- index: seconds to index all tars, from nothing.
- order: seconds and MB for all positions of an epoch.
- memory: resident MB after the first 10,000 samples and after --read samples.
- throughput: images per second of processor time of `prefetch` over the stream, read, decoded and
  resized, beside those of Pillow decoding and resizing the same bytes from memory; in turns.
- step: processor time of `pacl train` on the tars per step; the share of it that is neither
  decoding (open and resize) nor the frozen towers, and that of feeding alone (reading, prefetching,
  numbering texts, stacking), without the method itself (embedder, loss, optimiser).
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from pacl.data import tars
from pacl.data.images import open_image
from pacl.data.opening import open_pairs
from pacl.data.prefetch import prefetch
from pacl.data.tars import TarPairs
from pacl.modeling.names import find_source
from pacl.modeling.towers.hf import HfClip
from pacl.training.config import TrainConfig
from pacl.training.setup import prepare
from pacl.training.train import Progress, train

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from checkpoints import SIZES, write_clip

N_PER_TAR = 10_000
BATCH = 256


def write_tars(folder: Path, n_samples: int, side: int) -> None:
    """A few drawn JPEGs over and over: what is measured is reading, not what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = []
    for _ in range(64):
        coarse = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((side, side)).save(buffer, "JPEG", quality=85)
        images.append(buffer.getvalue())
    for first in range(0, n_samples, N_PER_TAR):
        path = folder / f"{first // N_PER_TAR:05d}.tar"
        if path.exists():
            continue
        with path.with_suffix(".part").open("wb") as file:
            for number in range(first, min(first + N_PER_TAR, n_samples)):
                text = f"a drawing of number {number} beside a house".encode()
                for suffix, content in (("jpg", images[number % 64]), ("txt", text)):
                    member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    member.size = len(content)
                    file.write(member.tobuf(tarfile.USTAR_FORMAT) + content)
                    file.write(bytes(-len(content) % 512))
            file.write(bytes(1024))
        path.with_suffix(".part").rename(path)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def timed(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> Any:
    start_s = clock()
    return work(), clock() - start_s


def batches_of(rows: np.ndarray) -> Iterable[list[int]]:
    return (rows[k : k + BATCH].tolist() for k in range(0, len(rows), BATCH))


def measure_throughput(pairs: TarPairs, n: int, workers: int, n_rounds: int) -> dict[str, float]:
    """Medians of alternating rounds."""
    resize = HfClip.from_pretrained(find_source("storybook")).resize
    rates: dict[str, list[float]] = {"tars": [], "pillow": []}
    for number in range(n_rounds):
        rows = pairs.order.rows(0, number, 0, n)

        def from_tar(row: int) -> torch.Tensor:
            pairs.read_captions(row)
            return resize(pairs.open_image(row))

        held = {row: pairs.read_image_bytes(row) for row in rows.tolist()}

        def from_memory(row: int, held: dict[int, bytes] = held) -> torch.Tensor:
            return resize(open_image(held[row]))

        for name, load in (("tars", from_tar), ("pillow", from_memory)):
            run = partial(prefetch, load, batches_of(rows), workers=workers)
            _, seconds = timed(lambda run=run: [None for _ in run()], time.process_time)
            rates[name].append(n / seconds)
    found = {f"{name}_images_per_cpu_s": float(np.median(rate)) for name, rate in rates.items()}
    ratios = np.array(rates["tars"]) / np.array(rates["pillow"])
    return found | {"share_of_pillow": float(np.median(ratios))}


def measure_step(folder: Path, model: str, batch_size: int, n_steps: int) -> dict[str, float]:
    """Train on the tars without a cache, and tell decoding and towers from the rest."""
    spent: dict[str, float] = {"decoding": 0.0, "towers": 0.0}

    def timed_as(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            start_s = time.thread_time()
            try:
                return work(*args, **options)
            finally:
                spent[name] += time.thread_time() - start_s

        return run

    marks: list[tuple[float, float, float]] = []

    def on_step(_: Progress) -> None:
        marks.append((time.process_time(), spent["decoding"], spent["towers"]))

    with ExitStack() as stack:
        for owner, method, name in (
            (tars, "open_image", "decoding"),
            (HfClip, "resize", "decoding"),
            (HfClip, "encode_patches", "towers"),
            (HfClip, "encode_tokens", "towers"),
        ):
            work = timed_as(name, getattr(owner, method))
            stack.enter_context(mock.patch.object(owner, method, work))
        output = Path(stack.enter_context(TemporaryDirectory()))
        if model in SIZES:
            model = str(write_clip(output / "clip", size=model))
        config = TrainConfig(data=folder, output=output / "run", model=model, cache="none")
        settings = replace(
            config, batch_size=batch_size, steps=n_steps, device="cpu", probe_every=0
        )
        train(settings, progress=on_step)
        feed = prepare(settings.resolve(), on_encoded=None).feed
        before_s, decoded_s = time.process_time(), spent["decoding"]
        n_fed = sum(1 for _ in feed.iter_batches(0, n_steps))
        feeding = time.process_time() - before_s - (spent["decoding"] - decoded_s)
    whole, decoding, towers = (np.array(marks[-1]) - np.array(marks[0])) / (len(marks) - 1)
    return {
        "step_share_of_feeding": feeding / n_fed / whole,
        "step_cpu_s": whole,
        "step_decoding_cpu_s": decoding,
        "step_towers_cpu_s": towers,
        "step_share_of_the_rest": 1 - (decoding + towers) / whole,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--read", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--model", default="storybook", help="of the training steps; vit-b-16: random weights"
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    write_tars(options.folder, options.samples, options.side)
    for index in options.folder.glob("*.pacl-index"):
        index.unlink()
    opened, index_s = timed(lambda: open_pairs(options.folder))
    assert isinstance(opened, TarPairs)
    found: dict[str, Any] = {"n_samples": len(opened), "index_s": index_s}
    found["index_bytes_per_sample"] = sum(
        path.stat().st_size for path in options.folder.glob("*.pacl-index")
    ) / len(opened)
    before_mb = resident_mb()

    def walk() -> int:
        n = opened.order.n_per_epoch
        return sum(len(opened.order.rows(0, 0, k, min(n, k + BATCH))) for k in range(0, n, BATCH))

    n_walked, found["order_s"] = timed(walk)
    assert n_walked == len(opened)
    found["order_mb"] = resident_mb() - before_mb
    found |= measure_throughput(opened, min(4096, len(opened)), options.workers, options.rounds)
    found |= measure_step(options.folder, options.model, options.batch_size, options.steps)

    def read(row: int) -> int:
        return len(opened.read_captions(row)) + len(opened.read_image_bytes(row))

    for number, _ in enumerate(
        prefetch(read, batches_of(opened.order.rows(0, 0, 0, options.read)), workers=2)
    ):
        if number == 10_000 // BATCH:
            found["memory_after_10000_mb"] = resident_mb()
    found["memory_at_the_end_mb"] = resident_mb()
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
