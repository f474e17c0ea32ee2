"""Text embeddings of a step: by a tower that is trained, or encoded once by a frozen one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from pacl.modeling.towers import TextTower
from pacl.runtime import distributed

TEXT_CHUNK = 64
"""Texts of a table that are encoded at once, by one process. A text's last bits depend on those
that it is encoded with."""
TEXT_GROUP = 512
"""Texts of a table that are encoded when one of them is first needed."""

EncodeTexts = Callable[[Sequence[str], np.ndarray], Tensor]
"""Texts, and the numbers (C,) of some of them → text embeddings (C, D)."""


def build_text_encoder(encoder: TextTower, texts: Sequence[str]) -> EncodeTexts:
    """Build a function from numbers of these texts to embeddings that runs the text tower.

    Texts are tokenised once. A batch is padded to its longest text, and a text that occurs in it
    more than once is encoded once.
    """
    device = encoder.device
    ids, mask, _ = encoder.tokenize(texts)
    lengths = mask.sum(dim=1).numpy()
    ids, mask = ids.to(device), mask.to(device)

    def encode(_: Sequence[str], numbers: np.ndarray) -> Tensor:
        unique, place = np.unique(numbers, return_inverse=True)
        longest = int(lengths[unique].max())
        chosen = torch.from_numpy(unique).to(device)
        embeds = encoder.encode_tokens(
            ids.index_select(0, chosen)[:, :longest], mask.index_select(0, chosen)[:, :longest]
        )
        # index_select sums its gradient in a fixed order; that of embeds[place] is not on a CPU.
        return embeds.index_select(0, torch.from_numpy(place).to(device))

    return encode


class TextLookup:
    """Embeddings of numbered texts by a frozen tower, each computed when it is first needed.

    Texts are encoded group by group. Rounding depends on the texts beside a text, and the groups
    depend on the order alone: a run that is resumed finds the same embeddings to the bit.

    Args:
        encoder: The text tower.
        texts: All texts, in the order of their numbers.
        order: All their numbers, those needed first at the beginning; None: by length, for the
            least padding.
    """

    def __init__(
        self,
        encoder: TextTower,
        texts: Sequence[str],
        order: Int64[np.ndarray, " N"] | None = None,
    ) -> None:
        self._encoder: TextTower = encoder
        self._texts: Sequence[str] = texts
        lengths = np.array([len(text) for text in texts])
        if order is None:
            order = np.argsort(lengths, kind="stable")
        starts = range(0, len(texts), TEXT_GROUP)
        groups = [order[start : start + TEXT_GROUP] for start in starts]
        self._groups = [of[np.argsort(lengths[of], kind="stable")] for of in groups]
        self._place_of = np.argsort(np.concatenate(self._groups))
        self._table = torch.empty(len(texts), encoder.text_width, device=encoder.device)
        self._is_there = np.zeros(len(groups), dtype=bool)
        self.n_cut = 0
        """Texts cut to the tower's context length, so far."""

    def __call__(self, _: Sequence[str], numbers: np.ndarray) -> Tensor:
        """See `EncodeTexts`; with several processes all call it with the same numbers."""
        places = self._place_of[numbers]
        groups = np.unique(places // TEXT_GROUP)
        for group in groups[~self._is_there[groups]]:
            self._encode(int(group))
        return self._table.index_select(0, torch.from_numpy(places).to(self._table.device))

    def _encode(self, group: int) -> None:
        """Encode a group; each process encodes a share, and all receive the whole."""
        numbers = self._groups[group]
        table = self._table[group * TEXT_GROUP :][: len(numbers)]
        share = distributed.own_share(len(numbers), together=TEXT_CHUNK)
        n_cut = 0
        with torch.no_grad():
            for start in range(share.start, share.stop, TEXT_CHUNK):
                chunk = slice(start, min(start + TEXT_CHUNK, share.stop))
                texts = [self._texts[int(k)] for k in numbers[chunk]]
                ids, mask, n = self._encoder.tokenize(texts)
                ids, mask = ids.to(table.device), mask.to(table.device)
                table[chunk] = self._encoder.encode_tokens(ids, mask).float()
                n_cut += n
        distributed.exchange_shares(table, together=TEXT_CHUNK)
        self.n_cut += sum(distributed.gather_values(n_cut))
        self._is_there[group] = True


def encode_as_needed(encoder: TextTower, *, is_trained: bool) -> EncodeTexts:
    """Build a function that encodes the texts of a step, where there are too many to hold.

    Args:
        encoder: The text tower.
        is_trained: Whether gradients go through it, on one process; a frozen one is shared among
            the processes, each of which encodes a share of the texts.
    """

    def encode(texts: Sequence[str], numbers: np.ndarray) -> Tensor:
        unique, place = np.unique(numbers, return_inverse=True)
        wanted = [texts[int(number)] for number in unique]
        if is_trained:
            return build_text_encoder(encoder, wanted)(wanted, place)
        return TextLookup(encoder, wanted)(wanted, place)

    return encode
