"""Static text towers: a vector for each word piece, and a text is the mean of its pieces.

The layout of model2vec and of WordLlama: model.safetensors with a table (`embeddings` or
`embedding.weight`) and, where wanted, a weight per token (`weights`), and tokenizer.json.
"""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pacl.errors import InputError
from pacl.modeling.towers import files
from pacl.modeling.towers.tokens import EncodesTexts, pad_tokens

TABLES = ("embeddings", "embedding.weight")
TOKEN_WEIGHTS = "weights"
TOKENIZER = "tokenizer.json"
CONTEXT_LENGTH = 512
FIRST_LOGIT_SCALE = 1 / 0.07
"""CLIP's own first value: no checkpoint of this kind has one."""


class StaticText(EncodesTexts, nn.Module):
    """Word vectors and their tokenizer. Frozen.

    Args:
        table: A vector per token.
        token_weights: Weight of each token in the mean; None: all alike.
        tokenizer: A `tokenizers.Tokenizer`.
        source: The directory as the user gave it.
        fingerprint: Identifies the weights.

    Attributes:
        text_width: D, width of the embeddings.
        context_length: Most tokens of a text.
        logit_scale: Where training starts.
    """

    table: Tensor
    token_weights: Tensor

    def __init__(
        self,
        table: Float[Tensor, "V D"],
        token_weights: Float[Tensor, "V"] | None,
        tokenizer: Any,
        *,
        source: str,
        fingerprint: str,
    ) -> None:
        super().__init__()
        if token_weights is None:
            token_weights = torch.ones(len(table))
        self.register_buffer("table", table.float())
        self.register_buffer("token_weights", token_weights.float())
        self.tokenizer = tokenizer
        self.source = source
        self.fingerprint = fingerprint
        self.text_width: int = table.shape[1]
        self.context_length = CONTEXT_LENGTH
        self.logit_scale = FIRST_LOGIT_SCALE

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str | torch.device = "cpu"
    ) -> StaticText:
        """Load a tower from a local directory.

        Raises:
            InputError: Files are missing or damaged, or table and tokenizer do not fit.
        """
        from tokenizers import Tokenizer

        directory = Path(source)
        weights = files.read_weights(directory)
        table = next((weights[name] for name in TABLES if name in weights), None)
        if table is None or table.ndim != 2:
            raise InputError(
                f"{directory} holds no table of word vectors",
                why=f"looked for {' or '.join(TABLES)}, found {', '.join(sorted(weights))}",
            )
        if not (directory / TOKENIZER).is_file():
            raise InputError(f"{directory} holds no {TOKENIZER}", why=files.found_files(directory))
        tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if tokenizer.get_vocab_size() > len(table):
            raise InputError(
                f"the tokenizer in {directory} does not fit its table",
                why=f"{tokenizer.get_vocab_size():,} tokens, {len(table):,} vectors",
            )
        return cls(
            table,
            weights.get(TOKEN_WEIGHTS),
            tokenizer,
            source=str(source),
            fingerprint=files.fingerprint(weights),
        ).to(device)

    @property
    def device(self) -> torch.device:
        """Where the table is, and token ids are wanted."""
        return self.table.device

    def tokenize(self, texts: Sequence[str]) -> tuple[Int[Tensor, "C L"], Bool[Tensor, "C L"], int]:
        """Turn texts into token ids, the mask of real tokens, and the number of texts cut.

        Raises:
            InputError: A text has no token that the tower knows.
        """
        found = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        rows = [each.ids for each in found]
        for text, row in zip(texts, rows, strict=True):
            if not row:
                raise InputError(f"{text!r} has no word that {self.source} knows")
        return pad_tokens(rows, context_length=self.context_length, pad_id=0)

    def tokenizer_json(self) -> str:
        """Return the tokenizer as the tokenizers library stores it, cutting and padding too."""
        from tokenizers import Tokenizer, processors

        tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        tokenizer.post_processor = processors.Sequence([])  # adds no tokens, as `tokenize`
        tokenizer.enable_truncation(self.context_length)
        tokenizer.enable_padding(pad_id=0)
        return tokenizer.to_str()

    def encode_tokens(
        self, ids: Int[Tensor, "C L"], mask: Bool[Tensor, "C L"]
    ) -> Float[Tensor, "C D"]:
        """Average the vectors of each text's tokens, weighted, to unit length."""
        weights = self.token_weights[ids] * mask
        total = F.embedding_bag(ids, self.table, mode="sum", per_sample_weights=weights)
        return F.normalize(total, dim=-1)
