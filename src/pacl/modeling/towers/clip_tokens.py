"""Texts as a CLIP's text transformer wants them: cleaned, split, cut, padded."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

from pacl.modeling.towers import files
from pacl.modeling.towers.tokens import EncodesTexts, pad_tokens
from pacl.text.cleaning import clean_text


class TokenizesAsClip(EncodesTexts):
    """What text towers with a CLIP's tokenizer share."""

    tokenizer: Any
    context_length: int
    cleans_texts: bool
    pads_to_length: bool = False
    """Whether every text has the full length, since attention reads the padding, which is 0."""

    def tokenize(self, texts: Sequence[str]) -> tuple[Int[Tensor, "C L"], Bool[Tensor, "C L"], int]:
        """Turn texts, cleaned as CLIP's were, into token ids.

        A text over the context length is cut, its end token kept. An end token that a user types
        is a token like any other: the mask decides where the text ends.

        Returns:
            Ids, padded on the right to the longest text; the mask of real tokens; how many
            texts were cut.
        """
        if self.cleans_texts:
            texts = list(map(clean_text, texts))
        rows = self.tokenizer(list(texts), padding=False, truncation=False, verbose=False).input_ids
        ids, mask, n_cut = pad_tokens(
            rows, context_length=self.context_length, pad_id=self._pad_id()
        )
        if self.pads_to_length:
            rest = (0, self.context_length - ids.shape[1])
            ids, mask = F.pad(ids, rest, value=self._pad_id()), F.pad(mask, rest)
        return ids, mask, n_cut

    def tokenizer_json(self) -> str:
        """Return the tokenizer as the tokenizers library stores it, cutting and padding too.

        It tidies white space and case; `pacl.text.cleaning.clean_text` repairs what it cannot.
        """
        from tokenizers import Regex, Tokenizer
        from tokenizers.normalizers import NFC, Lowercase, Replace
        from tokenizers.normalizers import Sequence as Normalizers

        tokenizer = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        if self.cleans_texts:
            tokenizer.normalizer = Normalizers([NFC(), Replace(Regex(r"\s+"), " "), Lowercase()])
        tokenizer.enable_truncation(self.context_length)
        length = self.context_length if self.pads_to_length else None
        tokenizer.enable_padding(pad_id=self._pad_id(), length=length)
        return tokenizer.to_str()

    def _pad_id(self) -> int:
        return 0 if self.pads_to_length else self.tokenizer.pad_token_id


def build_tokenizer(directory: Path, *, cleans_texts: bool) -> Any:
    """Read a checkpoint's tokenizer.

    Args:
        directory: The checkpoint.
        cleans_texts: Whether texts are cleaned before: it is OpenAI's tokenizer.

    Raises:
        InputError: Its files are missing.
    """
    from transformers import AutoTokenizer, CLIPTokenizer

    files.require_tokenizer(directory)
    if not cleans_texts:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True)
    tokenizer = CLIPTokenizer.from_pretrained(directory, local_files_only=True)
    tokenizer.backend_tokenizer.normalizer = None  # `clean_text` does it, and OpenAI's does no NFC
    return tokenizer
