"""Kill a run from tars at random moments, resume it, and compare with an undisturbed one.

    python benchmarks/kill_and_resume.py --folder /tmp/kills --kills 20

Every start is `pacl train` in a process of its own, on 1 or 2 processes in turn with --processes 2.
It is ended by SIGKILL, SIGTERM or SIGINT once metrics.jsonl holds a random number of further steps.
Compared are all weights and moments: bit for bit with one process, else to 1e-6.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


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
    options = ["--data", str(folder / "tars"), "--output", str(output), "--batch-size", "8"]
    options += ["--steps", str(n_steps), "--checkpoint-every", "3", "--log-every", "1"]
    options += ["--precision", "fp32", "--device", "cpu"]
    return [sys.executable, *launcher, "-m", "pacl", "train", *options]


def n_steps_done(output: Path) -> int:
    try:
        return len((output / "metrics.jsonl").read_text().splitlines())
    except OSError:
        return 0


def disturb(words: list[str], output: Path, n_more: int, number: int) -> int:
    """Run until some more steps are logged, then send the signal; return the exit code.

    Raises:
        RuntimeError: The run ended by itself before, with an error.
    """
    wanted = n_steps_done(output) + n_more
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, start_new_session=True, **quiet) as process:
        while process.poll() is None and n_steps_done(output) < wanted:
            time.sleep(0.01)
        if process.poll():
            raise RuntimeError(f"ended by itself with code {process.returncode}")
        if process.poll() is None:
            os.killpg(process.pid, number)
        return process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    folder, n_steps = options.folder, 4 * options.kills
    write_tars(folder / "tars")
    whole, parts = folder / "whole", folder / "parts"
    subprocess.run(command(folder, whole, n_steps, 1), check=True, capture_output=True)
    codes: list[list[object]] = []
    for number in range(options.kills):
        n_processes = 1 + number % options.processes
        sent = SIGNALS[number % len(SIGNALS)]
        words = command(folder, parts, n_steps, n_processes)
        code = disturb(words, parts, draw.randint(1, 4), sent)
        codes.append([n_processes, sent.name, code, n_steps_done(parts)])
    subprocess.run(command(folder, parts, n_steps, 1), check=True, capture_output=True)
    first, second = (load_file(run / "last" / "trainer.safetensors") for run in (whole, parts))
    largest = max((first[name] - second[name]).abs().max().item() for name in first)
    is_equal = all(torch.equal(first[name], second[name]) for name in first)
    found = {"kills": codes, "bit_equal": is_equal, "largest_difference": largest}
    print(json.dumps(found))
    sys.exit(0 if is_equal or (options.processes > 1 and largest <= 1e-6) else 1)


if __name__ == "__main__":
    main()
