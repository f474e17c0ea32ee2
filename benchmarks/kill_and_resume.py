"""Kill a run from tars at random moments, resume it, and compare with an undisturbed one.

    python benchmarks/kill_and_resume.py --folder FOLDER --processes 2 --output results.json

Every start is `pacl train` in a process of its own, or with --processes N in 1 to N in turn. Once
metrics.jsonl holds a random number of further steps it is ended: by SIGKILL, SIGTERM or SIGINT to
all, by SIGKILL to one of several processes, or by a full disk. A folder on a small file system (a
tmpfs of some MB) is filled up; elsewhere files may not grow beyond what a checkpoint needs. One
sample is damaged; with --missing-tar a tar vanishes before the first start, its index remains.

Compared are weights and moments in last/ and the best model in best/: bit for bit with one process;
with several, to 1e-6, and in float32 they are then equal to the bit as well, since every process
computes with one thread and two images at once (see accumulate.py).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
ONE_KILLED, FULL_DISK = "one process killed", "disk full"
ENDS = (*SIGNALS, ONE_KILLED, FULL_DISK)
SMALL_DISK, SMALL_FILE = 2**30, 2**16
"""Bytes: a file system up to this size is filled up; a checkpoint has a file larger than this."""
CANNOT_RUN = 3
COMPARED = ("last/trainer.safetensors", "best/embedder.safetensors")
LONGEST_S = 300
TOLERANCE = 1e-6
"""Largest difference between runs on different numbers of processes."""


def write_tars(folder: Path, n_tars: int = 4, n_each: int = 32) -> None:
    """Coloured squares with captions; one of them is damaged."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(n_tars):
        with tarfile.open(folder / f"{number:02d}.tar", "w") as tar:
            for sample in range(n_each):
                buffer = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                    buffer, "PNG"
                )
                image = buffer.getvalue()[: 40 if (number, sample) == (1, 5) else None]
                text = f"a house number {sample} on a road".encode()
                for suffix, content in (("png", image), ("txt", text)):
                    member = tarfile.TarInfo(f"{number:02d}-{sample:04d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def command(folder: Path, output: Path, n_steps: int, n_processes: int) -> list[str]:
    launcher = [] if n_processes == 1 else ["-m", "torch.distributed.run", "--standalone"]
    launcher += [] if n_processes == 1 else ["--nproc-per-node", str(n_processes)]
    tars = folder / "tars"
    options = ["--data", str(tars / "{00..03}.tar"), "--output", str(output), "--batch-size", "8"]
    options += ["--steps", str(n_steps), "--checkpoint-every", "3", "--log-every", "1"]
    options += ["--val", str(tars / "00.tar"), "--val-every", "4", "--probe-every", "0"]
    options += ["--precision", "fp32", "--device", "cpu", "--images-at-once", "2"]
    return [sys.executable, *launcher, "-m", "pacl", "train", *options]


def n_steps_done(output: Path) -> int:
    try:
        return len((output / "metrics.jsonl").read_text().splitlines())
    except OSError:
        return 0


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Fill the small file system of a folder up for a while."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (2**16, 2**10, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    continue
        yield
    finally:
        filler.unlink()


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILE, SMALL_FILE))


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def disturb(words: list[str], output: Path, n_more: int, end: str) -> tuple[int, str]:
    """Run until some more steps are logged, then end the run; return its code and last words.

    Raises:
        RuntimeError: The run ended by itself before, with an error.
    """
    wanted = n_steps_done(output) + n_more
    is_small = shutil.disk_usage(output.parent).total < SMALL_DISK
    limits: Callable[[], None] | None = None
    if end == FULL_DISK and not is_small:
        limits = small_files
    with subprocess.Popen(
        words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, preexec_fn=limits,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        while limits is None and process.poll() is None and n_steps_done(output) < wanted:
            time.sleep(0.01)
        if process.poll():
            raise RuntimeError(f"ended by itself: {process.stderr.read()}")
        wait = partial(process.communicate, timeout=LONGEST_S)
        if end == FULL_DISK and is_small:
            with full_disk(output.parent):
                _, said = wait()
        else:
            if end == "SIGKILL":  # to all: a launcher that is killed cannot pass it on
                for pid in (process.pid, *children(process.pid)):
                    with suppress(ProcessLookupError):  # it has just finished
                        os.kill(pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                if end in SIGNALS and end != "SIGKILL":
                    os.killpg(process.pid, SIGNALS[end])
                elif end == ONE_KILLED:
                    os.kill(children(process.pid)[-1], signal.SIGKILL)
            _, said = wait()
        errors = [line.strip() for line in said.splitlines() if line.startswith("error:")]
        return process.returncode, " | ".join(dict.fromkeys(errors))


def compare(whole: Path, parts: Path) -> dict[str, object]:
    """Compare all tensors of two runs: bit for bit, and how many entries differ by how much."""
    differences = {}
    is_equal = True
    for name in COMPARED:
        first, second = load_file(whole / name), load_file(parts / name)
        is_equal &= all(torch.equal(first[key], second[key]) for key in first)
        differences |= {f"{name}: {key}": (first[key] - second[key]).abs() for key in first}
    everything = torch.cat([each.flatten() for each in differences.values()])
    return {
        "bit_equal": is_equal,
        "largest_difference": everything.max().item(),
        "largest_in": max(differences, key=lambda key: differences[key].max().item()),
        "mean_difference": everything.double().mean().item(),
        "share_beyond": (everything > TOLERANCE).double().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--missing-tar", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    if options.processes > 1:
        os.environ["OMP_NUM_THREADS"] = "1"  # torchrun's; one process alone would take all
    folder, n_steps = options.folder, 4 * options.kills
    write_tars(folder / "tars")
    whole, parts = folder / "whole", folder / "parts"
    if options.missing_tar:
        subprocess.run(command(folder, folder / "index", 1, 1), check=True, capture_output=True)
        (folder / "tars" / "02.tar").unlink()
    subprocess.run(command(folder, whole, n_steps, 1), check=True, capture_output=True)
    kills = []
    for number in range(options.kills):
        end = ENDS[number % len(ENDS)]
        n_processes = 1 + number % options.processes
        if end == ONE_KILLED and n_processes == 1:
            end, n_processes = (end, 2) if options.processes > 1 else ("SIGKILL", 1)
        words = command(folder, parts, n_steps, n_processes)
        code, said = disturb(words, parts, draw.randint(1, 4), end)
        kills.append(
            {"end": end, "processes": n_processes, "code": code, "steps": n_steps_done(parts)}
            | ({"said": said.replace(str(folder), "FOLDER")} if said else {})
        )
        print(json.dumps(kills[-1]), file=sys.stderr, flush=True)
    subprocess.run(command(folder, parts, n_steps, 1), check=True, capture_output=True)
    replaced = [(run / "replaced.jsonl").read_text() for run in (whole, parts)]
    found = {
        "kills": kills,
        **compare(whole, parts),
        "replaced": len(replaced[0].splitlines()),
        "same_replaced": replaced[0] == replaced[1],
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")
    tolerance = TOLERANCE if options.processes > 1 else 0.0
    is_fine = found["bit_equal"] or found["largest_difference"] <= tolerance
    sys.exit(0 if is_fine and found["same_replaced"] else 1)


if __name__ == "__main__":
    main()
