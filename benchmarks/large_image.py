"""Memory of segmenting a file of 81 megapixels and saving its overlay, above the loaded model.

    python benchmarks/large_image.py
    python benchmarks/large_image.py --side-px 3000

Linux only; with the embedded model. Writes --output (JSON): the highest resident memory in MB
(10^6 bytes) of opening, segmenting and saving, above what was there when the model was loaded and
warmed up.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from measure import PeakMemory, machine
from PIL import Image

import pacl

LABELS = ["a house", "the sea", "grass", "the sky", "a tree", "a boat", "sand", "the sun"]


def measure(side_px: int, directory: Path) -> dict[str, float]:
    """The peak in MB; the opened image is part of it."""
    device, model = torch.device("cpu"), pacl.load("storybook", device="cpu")
    small = Image.effect_noise((256, 256), 80).convert("RGB")
    model.segment(small, LABELS).save(directory, stem="small", formats=["overlay"])
    path = directory / "large.jpg"
    small.resize((side_px, side_px)).save(path)
    with PeakMemory(device) as peak:
        model.segment(path, LABELS).save(directory, stem="large", formats=["overlay", "png"])
    return {"peak_mb": peak.bytes / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--side-px", type=int, default=9000)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/large_image.json"))
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = measure(settings.side_px, Path(directory))
    report = {"machine": machine(torch.device("cpu")), "side_px": settings.side_px, **found}
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    settings.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
