"""The nouns of a caption, by a lexicon of things that can be seen.

The paper trains on each caption and, beside it, on the caption's nouns in seven templates; which
tagger found the nouns is not known. Here a lexicon shipped with the package does it: no model,
no download, the same nouns on every machine. Words outside the lexicon are simply not used as
nouns; the caption itself still carries them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Literal, cast

_WORDS_MAX = 3  # the longest lexicon entries: "hot air balloon"

_IRREGULAR = {
    "people": "person",
    "children": "child",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
    "oxen": "ox",
    "cacti": "cactus",
    "octopi": "octopus",
}

_DETERMINERS = frozenset(
    "a an the this that these those his her its their my your our another each every no some any "
    "'s all both several many few two three four five six seven eight nine ten".split()
)
_PREPOSITIONS = frozenset(
    "in on at with without of from by into onto over under above below near behind beside between "
    "through around across along down up off past against inside outside toward towards".split()
)
_ADJECTIVES = frozenset(
    "red orange yellow green blue purple pink brown black white gray grey golden silver dark light "
    "bright colorful colourful striped multicolored tan beige big large huge giant small little "
    "tiny tall short long wide narrow thin thick high low steep shallow old new young wooden metal "
    "plastic rubber concrete wet dry dead fallen muddy dirty clean rocky sandy snowy grassy icy "
    "empty open closed round square flat inflatable beautiful other same crashing incoming right "
    "left outstretched bare deep rough smooth jagged sheer heavy lone outdoor indoor stone".split()
)
_BEFORE_A_NOUN = _DETERMINERS | _PREPOSITIONS | _ADJECTIVES

Mark = Literal["", "verb", "adjective"]


@dataclass(frozen=True)
class Lexicon:
    """The nouns to look for.

    Attributes:
        marks: noun in the singular (of one to three words) -> "" or the other part of speech that
            its form can be: "verb" (a wave, he waves) or "adjective" (an orange, an orange shirt).
            A marked noun counts only where the words around it say that it is a noun.
    """

    marks: dict[str, Mark]

    @classmethod
    def load(cls) -> Lexicon:
        """Read the lexicon shipped with the package: one noun per line, its mark after a tab."""
        marks: dict[str, Mark] = {}
        text = (resources.files("pacl.text") / "nouns.txt").read_text(encoding="utf-8")
        for line in text.splitlines():
            noun, _, mark = line.partition("\t")
            if not noun.startswith("#"):
                marks[noun] = cast(Mark, mark)
        return cls(marks=marks)

    @cached_property
    def first_words(self) -> frozenset[str]:
        """The words that entries of several words begin with."""
        return frozenset(noun.partition(" ")[0] for noun in self.marks if " " in noun)

    def __contains__(self, noun: str) -> bool:
        return noun in self.marks

    def __len__(self) -> int:
        return len(self.marks)

    def singular(self, words: str) -> str | None:
        """The lexicon's form of a word or phrase, singular or plural; None if it is not in it.

        A word that is in the lexicon as it stands is left alone ("glasses", "stairs", "sheep").
        """
        return next((form for form in _iter_singulars(words) if form in self.marks), None)


@cache
def shipped_lexicon() -> Lexicon:
    """Return the package's own nouns."""
    return Lexicon.load()


def extract_nouns(caption: str, *, lexicon: Lexicon | None = None) -> tuple[str, ...]:
    """The things that a caption names (paper section A.2.2: nouns of the caption).

    Args:
        caption: One sentence or more, in English.
        lexicon: The nouns to look for; None is the package's own.

    Returns:
        Unique nouns in the singular, in the order in which they appear. At each place the longest
        entry wins ("pine trees" gives "pine tree", not "pine" and "tree").
    """
    lexicon = shipped_lexicon() if lexicon is None else lexicon
    words = _split_words(caption, lexicon)
    nouns: dict[str, None] = {}
    start = 0
    while start < len(words):
        longest = _WORDS_MAX if words[start] in lexicon.first_words else 1
        for length in range(min(longest, len(words) - start), 0, -1):
            noun = lexicon.singular(" ".join(words[start : start + length]))
            if noun is not None and _is_noun_here(words, start, length, noun, lexicon):
                nouns[noun] = None
                start += length
                break
        else:
            start += 1
    return tuple(nouns)


def _split_words(caption: str, lexicon: Lexicon) -> list[str]:
    """Lower-case words and punctuation; "'s" stands alone, unknown hyphenated words come apart."""
    words: list[str] = []
    text = caption.casefold().replace("\u2019", "'")
    for word in re.findall(r"'s\b|[^\W\d_]+(?:-[^\W\d_]+)*|\d+|[^\w\s]", text):
        if "-" in word and lexicon.singular(word) is None:
            words.extend(word.split("-"))
        else:
            words.append(word)
    return words


def _iter_singulars(words: str) -> Iterator[str]:
    """What the phrase could be in the singular, the likeliest first; only the last word changes.

    "-s" is tried before "-es", since "canes" are not cans; forms that are no words do no harm,
    as the lexicon has to know them.
    """
    yield words
    before, space, last = words.rpartition(" ")
    stem = before + space
    if last in _IRREGULAR:
        yield stem + _IRREGULAR[last]
    if last.endswith("men"):
        yield stem + last[:-3] + "man"
    if last.endswith("s") and len(last) > 2:
        yield stem + last[:-1]
    if last.endswith("ies"):
        yield stem + last[:-3] + "y"
    if last.endswith("ves"):
        yield stem + last[:-3] + "f"
        yield stem + last[:-3] + "fe"
    if last.endswith("es"):
        yield stem + last[:-2]


def _is_noun_here(
    words: Sequence[str], start: int, length: int, noun: str, lexicon: Lexicon
) -> bool:
    """Whether a form that can also be a verb or an adjective is a noun at this place.

    Verb forms need a word before them that goes before nouns ("the waves", not "she waves").
    Adjective forms in the singular need a determiner before and nothing but the end of the clause
    or a preposition after ("an orange on a plate", not "an orange shirt").
    """
    before = words[start - 1] if start > 0 else ""
    after = words[start + length] if start + length < len(words) else ""
    mark = lexicon.marks[noun]
    if mark == "adjective" and noun == words[start]:
        ends_here = not after[:1].isalpha() or after in _PREPOSITIONS
        return before in _DETERMINERS and ends_here
    if mark == "verb" and before and before not in _BEFORE_A_NOUN:
        return False
    is_participle = noun.endswith("ing") and after in _DETERMINERS  # "building a castle"
    return not is_participle
