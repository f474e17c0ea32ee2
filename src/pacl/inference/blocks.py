"""An image cut into blocks of pixels, each between the same four patches.

Between four neighbouring patch centres bilinear upsampling is a product: the weights of the pixels
(which depend on their places only) times the scores of the four patches. A block is a rectangle of
pixels that lie between the same four, small enough for a product to stay in a CPU's cache.
Half-pixel centres and borders are those of `torch.nn.functional.interpolate` with
align_corners=False.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

MAX_SIDE_PX = 32
"""Longest side of a block."""


@dataclass(frozen=True)
class Axis:
    """One side of the image, cut into blocks of at most MAX_SIDE_PX pixels."""

    before: Int[Tensor, " blocks"]
    """The patch before each block, counted from 1: patch 0 repeats the first one."""
    share: Float[Tensor, "blocks slots"]
    """How far each pixel lies from that patch to the next, in [0, 1); 0 where a slot is empty."""
    slot: Int[Tensor, " pixels"]
    """Place of each pixel among all slots, block after block."""


def cut_axis(n_patches: int, n_pixels: int, *, device: torch.device) -> Axis:
    """Cut one side of an image of n_pixels into blocks that do not straddle a patch centre."""
    pixel = torch.arange(n_pixels, device=device, dtype=torch.float64)
    place = (pixel + 0.5) * (n_patches / n_pixels) - 0.5
    gap = place.floor().long() + 1  # 0 before the first centre, n_patches after the last
    counts = gap.bincount(minlength=n_patches + 1)
    longest = int(counts.max())
    n_slots = -(-longest // -(-longest // MAX_SIDE_PX))
    nth = torch.arange(n_pixels, device=device) - (counts.cumsum(0) - counts)[gap]
    _, block = torch.unique_consecutive(gap * longest + nth // n_slots, return_inverse=True)
    slot = block * n_slots + nth % n_slots
    n_blocks = int(block[-1]) + 1
    share = torch.zeros(n_blocks * n_slots, device=device)
    share[slot] = (place - place.floor()).float()
    before = torch.zeros(n_blocks, dtype=torch.long, device=device)
    before[block] = gap
    return Axis(before, share.view(n_blocks, n_slots), slot)


class Blocks:
    """All blocks of an image, numbered in reading order.

    Args:
        scores: One per name and patch.
        size_px: (height, width) of the image.
    """

    def __init__(self, scores: Float[Tensor, "C rows columns"], size_px: tuple[int, int]) -> None:
        padded = F.pad(scores[None], (1, 1, 1, 1), mode="replicate")[0]
        self._scores = padded.permute(1, 2, 0).flatten(0, 1).contiguous()
        self._n_columns = padded.shape[2]
        self._down, self._across = (
            cut_axis(n, n_pixels, device=scores.device)
            for n, n_pixels in zip(scores.shape[1:], size_px, strict=True)
        )
        self.n_names, self.device = len(scores), scores.device
        self.n_pixels = self._down.share.shape[1] * self._across.share.shape[1]
        """Pixels of each block, P, those included that fall outside the image."""

    def __len__(self) -> int:
        return len(self._down.before) * len(self._across.before)

    def corners(self, blocks: Int[Tensor, " m"]) -> Float[Tensor, "m 4 C"]:
        """Return the four patches' scores around each block: upper left, upper right, lower."""
        row, column = self._place(blocks)
        first = self._down.before[row] * self._n_columns + self._across.before[column]
        offsets = [0, 1, self._n_columns, self._n_columns + 1]
        return self._scores[first[:, None] + first.new_tensor(offsets)]

    def weights(self, blocks: Int[Tensor, " m"]) -> Float[Tensor, "m 4 P"]:
        """Return each patch's share in each pixel of each block, P pixels in reading order."""
        row, column = self._place(blocks)
        down, across = self._down.share[row][:, :, None], self._across.share[column][:, None, :]
        lower, right = down * across, across - down * across
        return torch.stack([1 - down - right, right, down - lower, lower], dim=1).flatten(2)

    def cut(self, n_blocks: int) -> list[range]:
        """Cut the image into strips: whole rows of blocks, of about so many blocks each."""
        n_across = len(self._across.before)
        step = max(1, n_blocks // n_across) * n_across
        return [range(k, min(k + step, len(self))) for k in range(0, len(self), step)]

    def pixel_rows(self, strip: range) -> slice:
        """Return the rows of the image that a strip of whole rows of blocks covers."""
        n_across, tall = len(self._across.before), self._down.share.shape[1]
        ends = self._down.slot.new_tensor([strip.start, strip.stop]) // n_across * tall
        first, last = torch.searchsorted(self._down.slot, ends).tolist()
        return slice(first, last)

    def assemble(
        self, values: Float[Tensor, "m P"] | Int[Tensor, "m P"], strip: range
    ) -> Float[Tensor, "h W"] | Int[Tensor, "h W"]:
        """Put one value per pixel of a strip's blocks together to a map of its rows."""
        tall, (n_across, wide) = self._down.share.shape[1], self._across.share.shape
        values = values.view(-1, n_across, tall, wide).transpose(1, 2).reshape(-1, n_across * wide)
        slots = self._down.slot[self.pixel_rows(strip)] - strip.start // n_across * tall
        return values.index_select(0, slots).index_select(1, self._across.slot)

    def _place(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        n_across = len(self._across.before)
        return blocks // n_across, blocks % n_across
