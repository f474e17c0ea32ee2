"""Storybook, the embedded world: drawn scenes with captions for training and masks for scoring.

Captions name only part of what is visible, and never a place in the image in a form that a model
could use as a mask. Every image is a pure function of (seed, split, index).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pacl.datasets.storybook.captions import describe, with_adjective, with_article
from pacl.datasets.storybook.paint import COLOURS
from pacl.datasets.storybook.scene import (
    HELD_OUT_COLOURS,
    LABELS,
    STUFF,
    THINGS,
    Scene,
    render,
    sample_scene,
    sample_single,
)

__all__ = ["HELD_OUT_COLOURS", "LABELS", "STUFF", "THINGS", "draw_scene", "draw_storybook"]

N_CAPTIONS = 3
#: A class is worth a word if it covers at least this share of the image.
MIN_VISIBLE_AREA = 0.006

#: Position in the seed of each split's images; never renumber.
_SPLIT_SEEDS = {"train": 0, "validation": 1, "test": 2, "things": 3, "compositions": 4}


@dataclass(frozen=True)
class Drawing:
    """A finished drawing: image (H, W, 3) uint8, mask (H, W) uint8 indices into LABELS."""

    image: np.ndarray
    mask: np.ndarray
    captions: tuple[str, ...]
    label: str = ""
    phrase: str = ""


def _caption_all(scene: Scene, mask: np.ndarray, rng: np.random.Generator) -> tuple[str, ...]:
    counts = np.bincount(mask.ravel(), minlength=256)[: len(LABELS)]
    visible = [LABELS[i] for i in np.flatnonzero(counts >= MIN_VISIBLE_AREA * mask.size)]
    return tuple(describe(scene, visible, rng) for _ in range(N_CAPTIONS))


def _scene_of(split: str, index: int, rng: np.random.Generator) -> tuple[Scene, str, str]:
    """The scene, and for the splits about one thing its class and phrase."""
    if split == "things":
        label = THINGS[index % len(THINGS)]
        return sample_single(rng, label), label, with_article(label)
    if split in ("seen_compositions", "heldout_compositions"):
        label = tuple(HELD_OUT_COLOURS)[index % len(HELD_OUT_COLOURS)]
        scene = sample_single(rng, label)
        seen = [word for word in COLOURS if word != HELD_OUT_COLOURS[label]]
        seen_colour = seen[(index // len(HELD_OUT_COLOURS)) % len(seen)]
        colour = HELD_OUT_COLOURS[label] if split.startswith("heldout") else seen_colour
        item = replace(scene.items[0], colour=colour)
        return (
            replace(scene, items=(item,)),
            label,
            with_article(with_adjective(colour, label, label)),
        )
    return sample_scene(rng), "", ""


def draw_scene(split: str, index: int, *, seed: int = 0, size_px: int = 128) -> Drawing:
    """Draw image `index` of a split.

    Args:
        split: One of train, validation, test, things (one thing each), seen_compositions or
            heldout_compositions (the same scenes; the one thing's colour was, or was never, drawn
            and captioned with that thing in training).
        size_px: Side of the square image, at least 32.
    """
    rng = np.random.default_rng(
        [seed, _SPLIT_SEEDS[split.removeprefix("seen_").removeprefix("heldout_")], index]
    )
    scene, label, phrase = _scene_of(split, index, rng)
    image, mask = render(scene, rng, size_px=size_px)
    return Drawing(image, mask, _caption_all(scene, mask, rng), label, phrase)


def _write_scene(index: int, *, split: str, directory: Path, seed: int, size_px: int) -> Drawing:
    """Draw one image to disk; returns it without its pixels."""
    drawing = draw_scene(split, index, seed=seed, size_px=size_px)
    name = f"{index:06d}.png"
    Image.fromarray(drawing.image).save(directory / "images" / name, compress_level=1)
    Image.fromarray(drawing.mask).save(directory / "masks" / name)
    nothing = np.empty(0, dtype=np.uint8)
    return replace(drawing, image=nothing, mask=nothing)


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _write_split(directory: Path, drawings: Sequence[Drawing]) -> None:
    names = [f"images/{index:06d}.png" for index in range(len(drawings))]
    _write_table(
        directory / "captions.csv",
        ("file_name", "caption"),
        ((name, c) for name, d in zip(names, drawings, strict=True) for c in d.captions),
    )
    if drawings and drawings[0].label:
        _write_table(
            directory / "labels.csv",
            ("file_name", "label", "phrase"),
            ((name, d.label, d.phrase) for name, d in zip(names, drawings, strict=True)),
        )
    classes = {"labels": LABELS, "ignore": [255], "stuff": STUFF, "things": THINGS}
    (directory / "classes.json").write_text(json.dumps(classes, indent=1), encoding="utf-8")


def _remove_beyond(directory: Path, count: int) -> None:
    """Remove the images of a larger split that was drawn here before."""
    for path in directory.glob("*/[0-9]*.png"):
        if int(path.stem) >= count:
            path.unlink()


def draw_storybook(
    directory: Path,
    *,
    counts: dict[str, int],
    seed: int = 0,
    size_px: int = 128,
    n_workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Path]:
    """Write splits as `<directory>/<split>/{images,masks,captions.csv,classes.json}`.

    Args:
        directory: Created if need be; a split of the same size, seed and image size that is
            already complete there is kept as it is.
        counts: Images per split; names as in `draw_scene`.
        n_workers: Processes; None takes one per core.
        on_progress: Called with images done and images in all.

    Returns:
        The folder of each split.
    """
    done, total = 0, sum(counts.values())
    folders: dict[str, Path] = {}
    with ProcessPoolExecutor(n_workers or os.cpu_count()) as pool:
        for split, count in counts.items():
            folder = folders[split] = directory / split
            stamp = {"split": split, "count": count, "seed": seed, "size_px": size_px, "world": 1}
            stamp_path = folder / "storybook.json"
            if not (stamp_path.is_file() and json.loads(stamp_path.read_text()) == stamp):
                for part in ("images", "masks"):
                    (folder / part).mkdir(parents=True, exist_ok=True)
                write = partial(
                    _write_scene, split=split, directory=folder, seed=seed, size_px=size_px
                )
                drawings: list[Drawing] = []
                for drawing in pool.map(write, range(count), chunksize=32):
                    drawings.append(drawing)
                    if on_progress and len(drawings) % 64 == 0:
                        on_progress(done + len(drawings), total)
                _write_split(folder, drawings)
                _remove_beyond(folder, count)
                stamp_path.write_text(json.dumps(stamp))
            done += count
            if on_progress:
                on_progress(done, total)
    return folders
