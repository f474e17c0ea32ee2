"""Texts as CLIP saw them in training: repaired, unescaped, in lower case, with single spaces."""

from __future__ import annotations

import html
from collections.abc import Iterable

CLEANED = " texts cleaned"


def clean_text(text: str) -> str:
    """Clean a text as OpenAI's and open_clip's tokenizers do before they split it into tokens.

    Broken encodings, curly quotes, ligatures, full-width letters and control characters are
    repaired by ftfy; HTML is unescaped twice (web captions are often escaped twice); white space
    becomes single spaces; letters become lower case. A checkpoint's tokenizer in Hugging Face
    format does only the last two, so that "a dog’s life" gets ids that CLIP never saw.
    """
    if not is_plain(text):
        import ftfy  # takes 0.2 s to import, and few texts need it

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def is_plain(text: str) -> bool:
    """Return whether there is nothing to repair: printable ASCII without an HTML entity."""
    return text.isascii() and text.isprintable() and "&" not in text


def cleaning_mark(texts: Iterable[str]) -> str:
    """Return what a fingerprint gains where cleaning may change any of the texts.

    Until 2026-11 texts were not cleaned: scores and label maps made with such texts are not
    reused, those made with plain texts are.
    """
    return "" if all(map(is_plain, texts)) else CLEANED
