"""Finer grids of patches without attention between all of them: mIoU and processor time.

    python benchmarks/finer_grids.py runs/quickstart/pacl runs/quickstart/storybook/test
    python benchmarks/finer_grids.py vit-b-16       one image of 224 px, random weights, time alone

`whole` is the paper's stride trick. `shifted` puts together passes at the patch size (`--grid
shifted` of pacl). `windows n` lets patches attend within n x n windows of the fine grid, each with
a CLS token of its own. `merged s` averages, after the second block, the share s of patches that are
most alike another one, in a bipartite matching (ToMe, arXiv 2210.09461, without its attention by
size), and gives each the token of its average; `twice` does it after the first block, too. One
thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from random_clip import build_clip
from torch import Tensor
from torch.nn.functional import normalize

from pacl.api import load
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.evaluation.segmentation import evaluate_folder
from pacl.inference.config import SegmentConfig
from pacl.inference.shifted import encode_shifted
from pacl.modeling.towers.token_kinds import TOKEN_KINDS, Grid, apply_block
from pacl.modeling.towers.walk import PatchTower

Forward = Callable[[PatchTower, Tensor, Grid], Tensor]
WHOLE: Forward = PatchTower.forward


def in_windows(tower: PatchTower, tokens: Tensor, grid: Grid, *, n: int) -> Tensor:
    """Run a tower on each window of a grid by itself."""
    cls, patches = tokens[:, :1], tokens[:, 1:].unflatten(1, grid)
    found = [
        torch.cat(
            [
                WHOLE(
                    tower,
                    torch.cat([cls, window.flatten(1, 2)], dim=1),
                    (window.shape[1], window.shape[2]),
                ).unflatten(1, window.shape[1:3])
                for window in row.tensor_split(n, dim=2)
            ],
            dim=2,
        )
        for row in patches.tensor_split(n, dim=1)
    ]
    return torch.cat(found, dim=1).flatten(1, 2)


def with_merging(
    tower: PatchTower, tokens: Tensor, grid: Grid, *, share: float, after: tuple[int, ...] = (2,)
) -> Tensor:
    """Run a tower, and merge patches after each of these blocks, counted from 1."""
    *earlier, last = tower.blocks
    owner = torch.arange(tokens.shape[1] - 1).expand(len(tokens), -1)
    for number, block in enumerate(earlier, 1):
        tokens = apply_block(block, tokens)
        if number in after:
            patches, place = merge_alike(tokens[:, 1:], share=share)
            tokens = torch.cat([tokens[:, :1], patches], dim=1)
            owner = place.gather(1, owner)
    merged = tower.norm(TOKEN_KINDS[tower.kind](last, tokens, grid)[:, 1:])
    return merged.gather(1, owner[..., None].expand(-1, -1, merged.shape[2]))


def merge_alike(patches: Tensor, *, share: float) -> tuple[Tensor, Tensor]:
    """Average every second patch with the one of the others that it is most alike, if it is so
    enough to be among the share of all that is merged; with each patch's place in the result."""
    n_images, n_patches, width = patches.shape
    unit = normalize(patches, dim=2)
    cosine, partner = (unit[:, ::2] @ unit[:, 1::2].mT).max(dim=2)
    n_even, n_kept = cosine.shape[1], cosine.shape[1] - round(share * n_patches)
    order = cosine.argsort(dim=1)  # the least alike are kept
    kept, gone = order[:, :n_kept], order[:, n_kept:]
    at = partner.gather(1, gone)
    odd, even = patches[:, 1::2].clone(), patches[:, ::2]
    count = torch.ones(n_images, odd.shape[1]).scatter_add_(1, at, torch.ones(at.shape))
    odd.scatter_add_(
        1,
        at[..., None].expand(-1, -1, width),
        even.gather(1, gone[..., None].expand(-1, -1, width)),
    )
    odd /= count[..., None]
    owner = torch.empty(n_images, n_patches, dtype=torch.long)
    owner[:, 1::2] = n_kept + torch.arange(odd.shape[1])
    of_even = torch.empty(n_images, n_even, dtype=torch.long)
    of_even.scatter_(1, kept, torch.arange(n_kept).expand(n_images, -1))
    owner[:, ::2] = of_even.scatter(1, gone, n_kept + at)
    return torch.cat([even.gather(1, kept[..., None].expand(-1, -1, width)), odd], dim=1), owner


VARIANTS: dict[str, Forward | None] = {
    "whole": WHOLE,
    "shifted": None,
    "windows 2": partial(in_windows, n=2),
    "windows 4": partial(in_windows, n=4),
    "merged 0.25": partial(with_merging, share=0.25),
    "merged 0.45": partial(with_merging, share=0.45),
    "merged 0.45 twice": partial(with_merging, share=0.45, after=(1, 2)),
}


def time_vit(name: str, stride_px: int) -> float:
    """Seconds of a ViT-B/16 of random weights."""
    clip, images = build_clip(), torch.randn(1, 3, 224, 224)
    encode = partial(clip.encode_patches, kind="clip", layer=-1)
    started_s = time.process_time()
    with torch.inference_mode():
        if VARIANTS[name] is None:
            encode_shifted(encode, images, patch_px=16, stride_px=stride_px)
        else:
            encode(images, stride_px=stride_px)
    return round(time.process_time() - started_s, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="as --model of pacl, or vit-b-16")
    parser.add_argument("dataset", type=Path, nargs="?", help="holds images/ and masks/")
    parser.add_argument("--stride-px", type=int, default=4)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.variants:
        run = VARIANTS[name] or WHOLE
        PatchTower.forward = lambda tower, tokens, grid, run=run: run(tower, tokens, grid)  # type: ignore
        if args.dataset is None:
            print(json.dumps({"grid": name, "cpu_s": time_vit(name, args.stride_px)}))
            continue
        config = SegmentConfig(
            patch_stride_px=args.stride_px, grid="whole" if VARIANTS[name] else "shifted"
        )
        model = load(args.model, engine="torch")
        started_s = time.process_time()
        scores = evaluate_folder(model, FolderDataset(args.dataset), config=config)
        seconds = round(time.process_time() - started_s, 1)
        print(json.dumps({"grid": name, "mIoU": round(scores.miou, 4), "cpu_s": seconds}))


if __name__ == "__main__":
    main()
