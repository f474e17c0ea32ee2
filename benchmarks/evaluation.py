"""Draw a data set in ADE20K's official layout, to see where the time of an evaluation goes.

    python benchmarks/evaluation.py runs/drawn --n-images 2000
    pacl evaluate ade150 --root runs/drawn --preset sclip --model CLIP --profile

The images are smooth noise of a photograph's size, the masks have 150 classes in patches; the
scores mean nothing. With --clip a ViT-B/16 of random weights is written too, which takes the time
of a real one: `--model runs/drawn/clip`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((512, 683), (480, 640), (375, 500), (683, 512))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--n-images", type=int, default=2000)
    parser.add_argument("--clip", action="store_true", help="write a ViT-B/16 of random weights")
    args = parser.parse_args()
    base = args.output / "ADEChallengeData2016"
    images, masks = base / "images" / "validation", base / "annotations" / "validation"
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(1, args.n_images + 1):
        height, width = SIZES[number % len(SIZES)]
        coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image.save(images / f"ADE_val_{number:08}.jpg")
        ids = rng.integers(0, 151, (6, 8), dtype=np.uint8)
        mask = Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST)
        mask.save(masks / f"ADE_val_{number:08}.png")
    if args.clip:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
        from checkpoints import write_clip

        write_clip(args.output / "clip", size="vit-b-16")


if __name__ == "__main__":
    main()
