"""Image paths of published protocols, slow and step by step, written anew from what they do.

From an image's pixels to its label map, for any scorer of patches: sizes, OpenCV's filter,
normalisation, windows, positions, upsampling, PAMR, softmax, background. The blocks of the tower
are the model's own; other tests hold them to their equations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Encode = Callable[[Tensor], Tensor]
"""One normalised crop (1, 3, H, W) → cosines (1, names, rows, columns)."""

CLIP_MEAN, CLIP_STD = (122.771, 116.746, 104.094), (68.501, 66.632, 70.323)
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def mmcv_size(height: int, width: int, scale: tuple[int, int]) -> tuple[int, int]:
    long_edge, short_edge = max(scale), min(scale)
    factor = min(long_edge / max(height, width), short_edge / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


def opencv_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV's fixed-point INTER_LINEAR, one output row and one output column at a time."""
    columns = []
    for x in range(width):
        place = np.float32((x + 0.5) * (image.shape[1] / width) - 0.5)
        left = int(np.floor(place))
        share = place - np.float32(left)
        if left < 0:
            left, share = 0, np.float32(0)
        if left >= image.shape[1] - 1:
            left, share = image.shape[1] - 1, np.float32(0)
        right = min(left + 1, image.shape[1] - 1)
        weights = [int(np.rint(each * np.float32(2048))) for each in (1 - share, share)]
        columns.append(
            image[:, left].astype(np.int64) * weights[0]
            + image[:, right].astype(np.int64) * weights[1]
        )
    wide = np.stack(columns, axis=1)
    rows = []
    for y in range(height):
        place = np.float32((y + 0.5) * (image.shape[0] / height) - 0.5)
        top = int(np.floor(place))
        share = place - np.float32(top)
        weights = [int(np.rint(each * np.float32(2048))) for each in (1 - share, share)]
        upper, lower = (wide[min(max(k, 0), len(wide) - 1)] >> 4 for k in (top, top + 1))
        rows.append((((weights[0] * upper) >> 16) + ((weights[1] * lower) >> 16) + 2) >> 2)
    return np.stack(rows).astype(np.uint8)


def load(
    image: np.ndarray, scale: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    height, width = mmcv_size(image.shape[0], image.shape[1], scale)
    resized = opencv_bilinear(image, height, width)
    pixels = torch.from_numpy(resized.astype(np.float32)).permute(2, 0, 1)
    channels = [(pixels[c] - mean[c]) / std[c] for c in range(3)]
    return torch.stack(channels)[None]


def clip_tokens(vision: Any, image: Tensor, *, is_stretched: bool) -> tuple[Tensor, int, int]:
    """The first block's input with positions as SCLIP's code, or as mmsegmentation, reads them."""
    embeddings = vision.embeddings
    patches = embeddings.patch_embedding(image)
    rows, columns = patches.shape[2:]
    tokens = torch.cat(
        [embeddings.class_embedding[None, None], patches.flatten(2).transpose(1, 2)], dim=1
    )
    table = embeddings.position_embedding.weight
    if tokens.shape[1] != len(table):
        side = round((len(table) - 1) ** 0.5)
        native = table[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        if is_stretched:
            factor = ((rows + 0.1) / side, (columns + 0.1) / side)
            grid = F.interpolate(native, scale_factor=factor, mode="bicubic")
        else:
            grid = F.interpolate(native, size=(rows, columns), mode="bicubic", align_corners=False)
        assert grid.shape[2:] == (rows, columns)
        table = torch.cat([table[:1], grid[0].flatten(1).T])
    return vision.pre_layrnorm(tokens + table), rows, columns


def resize(scores: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)


def slide(image: Tensor, decode: Encode, *, crop: int, stride: int, n_names: int) -> Tensor:
    height, width = image.shape[2:]
    sums, counts = torch.zeros(1, n_names, height, width), torch.zeros(1, 1, height, width)
    for row in range(max(height - crop + stride - 1, 0) // stride + 1):
        for column in range(max(width - crop + stride - 1, 0) // stride + 1):
            bottom = min(row * stride + crop, height)
            right = min(column * stride + crop, width)
            top, left = max(bottom - crop, 0), max(right - crop, 0)
            scores = decode(image[:, :, top:bottom, left:right])
            sums[:, :, top:bottom, left:right] += scores
            counts[:, :, top:bottom, left:right] += 1
    return sums / counts


def pamr(image: Tensor, masks: Tensor, *, dilations: Sequence[int], steps: int = 10) -> Tensor:
    def neighbours(x: Tensor, *, with_centre: bool) -> Tensor:
        moved = []
        height, width = x.shape[2:]
        for d in dilations:
            padded = F.pad(x, [d] * 4, mode="replicate")
            for down in (0, d, 2 * d):
                for right in (0, d, 2 * d):
                    if with_centre or (down, right) != (d, d):
                        moved.append(
                            padded[:, :, down : down + height, right : right + width].clone()
                        )
        return torch.stack(moved, dim=2)

    deviation = neighbours(image, with_centre=True).std(dim=2, keepdim=True)
    unlike = (image[:, :, None] - neighbours(image, with_centre=False)).abs()
    weights = (-unlike / (1e-8 + 0.1 * deviation)).mean(dim=1, keepdim=True).softmax(dim=2)
    for _ in range(steps):
        masks = (neighbours(masks, with_centre=False) * weights).sum(dim=2)
    return masks


def label_by_softmax(
    logits: Tensor,
    class_of_name: Tensor,
    *,
    scale: float,
    level: float = 0.0,
    area: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The label map of SCLIP's and NACLIP's code, and how clear each pixel's label is."""
    n_classes = int(class_of_name.max()) + 1
    names = (logits[0] * scale).softmax(dim=0)
    classes = torch.stack([names[class_of_name == k].max(dim=0)[0] for k in range(n_classes)])
    if area is not None:
        found = classes.argmax(dim=0)
        pixels = torch.stack([(found == k).sum() for k in range(1, n_classes)])
        for k in range(1, n_classes):
            if not pixels[k - 1] > area * pixels.sum():
                classes[k] = 0
    best = classes.topk(2, dim=0)[0]
    labels = classes.argmax(dim=0)
    labels[best[0] < level] = 0
    margin = torch.minimum((best[0] - best[1]) / best[0], (best[0] - level).abs())
    return labels.numpy(), margin.numpy()


def clip_path(
    image: np.ndarray,
    encode: Encode,
    n_names: int,
    *,
    short_px: int,
    crop: int | None,
    stride: int = 112,
    with_pamr: bool = False,
) -> Tensor:
    """Scores of SCLIP (crop 224), ProxyCLIP, or NACLIP, which may take whole images and PAMR."""
    seen = load(image, (2048, short_px), CLIP_MEAN, CLIP_STD)

    def decode(part: Tensor) -> Tensor:
        return resize(encode(part), part.shape[2:])

    if crop is None:
        scores = decode(seen)
    else:
        scores = slide(seen, decode, crop=crop, stride=stride, n_names=n_names)
    scores = resize(scores, image.shape[:2])
    if with_pamr:
        scores = pamr(resize(seen, image.shape[:2]), scores, dilations=(8, 16))
    return scores


def proxyclip_tokens(values: Tensor, features: Tensor, grid: tuple[int, int]) -> Tensor:
    """CLIP's values (1, C, rows, columns), upsampled and mixed as another tower's patches say."""
    unit = [patch / patch.norm() for patch in features.double()]
    table = torch.stack([torch.stack(unit) @ each for each in unit])
    values = resize(values.double(), grid)[0].flatten(1).T
    mean, rows = table.sum() / table.numel(), []
    for cosines in table:
        likeness = (cosines - 1.2 * mean) * 3.0
        exponentials = torch.where(likeness < 0, 0.0, likeness.exp())
        rows.append(exponentials @ values / exponentials.sum())
    return torch.stack(rows).float()


def tcl_path(
    image: np.ndarray, encode: Encode, n_names: int, *, patch: int, with_pamr: bool
) -> Tensor:
    """Masks of TCL's code without its decoder, in whose place patches are upsampled for PAMR."""
    seen = load(image, (2048, 448), IMAGENET_MEAN, IMAGENET_STD)

    def decode(part: Tensor) -> Tensor:
        height, width = part.shape[2:]
        wide, tall = -width % patch, -height % patch
        left, top = wide // 2, tall // 2
        padded = F.pad(part, (left, wide - left, top, tall - top))
        masks = torch.sigmoid((encode(padded) - 0.25) * 10.0)
        if with_pamr:
            quarter = (padded.shape[2] // 4, padded.shape[3] // 4)
            small = F.interpolate(padded, quarter, mode="bilinear", align_corners=True)
            masks = pamr(small, resize(masks, quarter), dilations=(1, 2, 4, 8, 12, 24))
        masks = resize(masks, padded.shape[2:])
        return masks[:, :, top : top + height, left : left + width]

    return resize(slide(seen, decode, crop=448, stride=224, n_names=n_names), image.shape[:2])


def maskclip_path(image: np.ndarray, encode: Encode, *, scale: tuple[int, int]) -> Tensor:
    """Scores of MaskCLIP's code, whose patch embedding pads below and to the right."""
    seen = load(image, scale, IMAGENET_MEAN, IMAGENET_STD)
    return resize(resize(encode(seen), seen.shape[2:]), image.shape[:2])
