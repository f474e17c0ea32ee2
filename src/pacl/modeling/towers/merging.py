"""Fewer tokens after the first blocks, for fine grids of patches: ours, not the paper's.

The stride trick gives every block all patches of the fine grid, though neighbours that overlap are
much alike. Here, after each of the first two blocks, the patches that are most alike another one
are averaged with it, and at the end each patch gets the token of its average: three tenths of the
tokens go through the other blocks. The matching is ToMe's (arXiv 2210.09461, section 3), by the
tokens themselves in place of the keys, and attention does not weigh a token by how many patches it
stands for. docs/log.md has the mIoU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pacl.errors import InputError
from pacl.modeling.towers.whole_walks import NEED_GRID

SHARE = 0.45
"""Of an image's patches, the share that each merging takes away; a half at most."""
N_MERGINGS = 2
"""Blocks after which patches are merged: the first ones, but never the last that runs."""
ROWS = 256
"""Patches that are compared at once with half of all: the cosines of all pairs are never held."""


def check_kind(kind: str) -> None:
    """Refuse kinds of patch tokens that ask where each patch lies.

    Raises:
        InputError: It is one of those.
    """
    if kind in NEED_GRID:
        raise InputError(
            f"{kind} tokens need every patch in its place, so none can be merged",
            fix="--grid shifted, or whole",
        )


def run_merging(
    blocks: Sequence[Callable[[Tensor], Tensor]],
    tokens: Float[Tensor, "B N E"],
    *,
    n_prefix: int,
) -> tuple[Float[Tensor, "B M E"], Int[Tensor, "B T"]]:
    """Run blocks one after the other, and merge patches after the first ones.

    Args:
        blocks: From tokens to tokens.
        tokens: CLS and registers first, which are never merged.
        n_prefix: How many those are.

    Returns:
        The tokens that are left, the prefix first; and for each patch the place of its token among
        those that are left of the patches, for `unmerge`.
    """
    places = torch.arange(tokens.shape[1] - n_prefix, device=tokens.device)
    places = places.expand(len(tokens), -1)
    for number, block in enumerate(blocks):
        tokens = block(tokens)
        if number < N_MERGINGS:
            patches, new_places = merge_alike(tokens[:, n_prefix:], share=SHARE)
            tokens = torch.cat([tokens[:, :n_prefix], patches], dim=1)
            places = new_places.gather(1, places)
    return tokens, places


def unmerge(patches: Float[Tensor, "B M E"], places: Int[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
    """Give each patch the token of those that it was merged with."""
    return patches.gather(1, places[..., None].expand(-1, -1, patches.shape[2]))


def merge_alike(
    patches: Float[Tensor, "B T E"], *, share: float
) -> tuple[Float[Tensor, "B M E"], Int[Tensor, "B T"]]:
    """Average patches that are alike.

    Every second patch, from the first on, is matched with the one of the others whose cosine with
    it is the highest; the pairs of the highest cosines are merged. Several may be merged with one.

    Args:
        patches: Row-major.
        share: Of the patches, how many go, 0 to 0.5.

    Returns:
        The patches that are left, and for each of those given its place among them.
    """
    n_patches = patches.shape[1]
    if n_patches < 2:
        return patches, patches.new_zeros(len(patches), n_patches, dtype=torch.long)
    unit = F.normalize(patches.float(), dim=2)
    others = unit[:, 1::2].mT
    with torch.autocast(patches.device.type, enabled=False):  # in bfloat16, too many are equal
        found = [torch.max(some @ others, dim=2) for some in torch.split(unit[:, ::2], ROWS, 1)]
    cosine = torch.cat([best.values for best in found], dim=1)
    partner = torch.cat([best.indices for best in found], dim=1)
    n_kept = cosine.shape[1] - round(share * n_patches)
    kept, merged = cosine.argsort(dim=1).tensor_split([n_kept], dim=1)
    into = partner.gather(1, merged)
    means = torch.scatter_reduce(
        patches[:, 1::2],
        1,
        into[..., None].expand(-1, -1, patches.shape[2]),
        unmerge(patches[:, ::2], merged),
        reduce="mean",
    )
    of_even = torch.empty_like(partner)
    of_even.scatter_(1, kept, torch.arange(n_kept, device=kept.device).expand_as(kept))
    of_even.scatter_(1, merged, n_kept + into)
    places = partner.new_empty(len(patches), n_patches)
    places[:, ::2] = of_even
    places[:, 1::2] = n_kept + torch.arange(means.shape[1], device=kept.device)
    return torch.cat([unmerge(patches[:, ::2], kept), means], dim=1), places
