"""What starting costs: the CPU time of `pacl segment` on one image over that of its imports.

    python benchmarks/start.py                       about 2 minutes

Runs two processes in turns, each on one thread: `pacl segment` with the embedded model on an image
of 480 x 360 px, and `import torch; from transformers import CLIPModel`.
Prints the medians of user and system time and their ratio, and writes them to --output (JSON).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import machine
from PIL import Image

SIZE_PX = (360, 480)
TARGET = 1.3
RESULTS = Path(__file__).parent / "results"


def cpu_s(command: list[str]) -> float:
    """User and system time of a process and of those that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=RESULTS / "start-cpu.json")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory, "image.png")
        pixels = np.random.default_rng(0).integers(0, 256, (*SIZE_PX, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(image)
        words = ["-m", "pacl", "segment", str(image), "--labels", "sky,road,car", "--overwrite"]
        commands = {
            "segment": [sys.executable, *words, "--output", str(Path(directory, "output"))],
            "imports": [sys.executable, "-c", "import torch; from transformers import CLIPModel"],
        }
        for command in commands.values():  # once for the caches of files and bytecode
            cpu_s(command)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(settings.repeats):
            for name, command in commands.items():
                times[name].append(cpu_s(command))
    medians = {name: round(statistics.median(each), 3) for name, each in times.items()}
    ratio = round(medians["segment"] / medians["imports"], 3)
    report = {
        "machine": machine(torch.device("cpu")),
        "cpu_s": {name: [round(value, 3) for value in each] for name, each in times.items()},
        "median_cpu_s": medians,
        "ratio": ratio,
        "target": TARGET,
    }
    settings.output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"segment {medians['segment']:.2f} s, imports {medians['imports']:.2f} s: {ratio:.2f} x")


if __name__ == "__main__":
    main()
