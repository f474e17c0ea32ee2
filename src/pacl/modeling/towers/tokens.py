"""Texts as token ids, and from there to embeddings some hundred at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TEXTS_AT_ONCE = 512


class EncodesTexts(ABC):
    """What text towers share: any number of texts is encoded in parts."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where token ids are wanted."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> tuple[Int[Tensor, "C L"], Bool[Tensor, "C L"], int]:
        """Turn texts into token ids, the mask of real tokens, and the number of texts cut."""

    @abstractmethod
    def encode_tokens(
        self, ids: Int[Tensor, "C L"], mask: Bool[Tensor, "C L"]
    ) -> Float[Tensor, "C D"]:
        """Encode what `tokenize` returned to unit embeddings."""

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "C D"]:
        """Encode texts, at least one, to unit embeddings; one that is too long is cut."""
        embeds: list[Tensor] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            ids, mask, _ = self.tokenize(texts[start : start + TEXTS_AT_ONCE])
            embeds.append(self.encode_tokens(ids.to(self.device), mask.to(self.device)))
        return torch.cat(embeds)


def pad_tokens(
    rows: Sequence[Sequence[int]], *, context_length: int, pad_id: int
) -> tuple[Int[Tensor, "C L"], Bool[Tensor, "C L"], int]:
    """Make one tensor of token ids of several lengths, for `walk_to_end`.

    Args:
        rows: Token ids, start and end tokens included.
        context_length: A longer row is cut to this length; its end token is kept.
        pad_id: Fills the shorter rows on the right.

    Returns:
        Ids; the mask of real tokens; how many rows were cut.
    """
    n_cut = sum(len(row) > context_length for row in rows)
    cut = [[*row[: min(len(row), context_length) - 1], row[-1]] for row in rows]
    ids = torch.full((len(cut), max(map(len, cut))), pad_id)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(cut):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    return ids, mask, n_cut
