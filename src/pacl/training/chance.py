"""Whether a run learns: its loss beside that of guessing."""

from __future__ import annotations

import math
from collections import deque

SPAN, FIRST = 20, 5
"""Steps whose mean loss is compared with chance; steps after which a run is first judged."""


class ChanceWatch:
    """Says where the loss goes, and once whether the run learns.

    Args:
        n_steps: Steps in all, those of earlier runs included.
        batch_size: Images that a caption is told apart from.
    """

    def __init__(self, n_steps: int, batch_size: int) -> None:
        self._n_steps, self._batch_size = n_steps, batch_size
        self._last: deque[float] = deque(maxlen=SPAN)
        self._is_told = False

    def add(self, step: int, *, loss: float, accuracy: float) -> list[str]:
        """Take in a step, and return what there is to say of it, in sentences.

        Args:
            step: Steps done, from 1.
            loss: The step's caption loss, per text.
            accuracy: Its in-batch retrieval top-1, in [0, 1].
        """
        chance, said = math.log(self._batch_size), list[str]()
        self._last.append(loss)
        if len(self._last) == FIRST < self._n_steps:
            first = self._last[0]
            said.append(
                f"step {step:,}: the loss per caption went from {first:.2f} to {loss:.2f}"
                f"{' and falls' if loss < first else ', not down yet'}; guessing is at "
                f"{chance:.2f}"
            )
        if self._is_told or len(self._last) < SPAN:
            return said
        mean = sum(self._last) / len(self._last)
        if mean <= 0.98 * chance:
            self._is_told = True
            said.append(
                f"step {step:,}: it learns: the loss per caption is {mean:.2f}, below "
                f"{chance:.2f}, that of guessing; an image finds its caption in "
                f"{accuracy:.1%} of cases (guessing: {1 / self._batch_size:.1%})"
            )
        elif step >= max(50, self._n_steps // 20):
            self._is_told = True
            said.append(
                f"warning: after {step:,} steps the loss per caption is still at chance "
                f"({chance:.2f})\n  do captions belong to their images? see: pacl data check; "
                "or try a higher --lr, or no --warmup"
            )
        return said
