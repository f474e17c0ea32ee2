"""Words for ImageNet's classes, from the lists that come with the data.

pacl ships no list. WordNet's words are not those of CLIP's authors, who chose their own for
ImageNet and report higher accuracy with them; a `names.txt` of one's own in the data's folder comes
before all other lists.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pacl.errors import InputError

LISTS = ("names.txt", "LOC_synset_mapping.txt", "synset_words.txt", "README.txt", "words.txt")
"""Files with lines such as `n01440764 tench, Tinca tinca`, the best first."""
FIX = (
    "put LOC_synset_mapping.txt beside the images: it is part of ImageNet at "
    "https://www.kaggle.com/c/imagenet-object-localization-challenge/data"
)
# Two classes have the one word "crane"; their ids say which is which.
_CRANES = {"n02012849": "crane bird", "n03126707": "construction crane"}
_LINE = re.compile(r"(n\d{8})\s+(\S.*)")


def find_synset_words(
    folders: Sequence[Path], wanted: Iterable[str]
) -> Mapping[str, tuple[str, ...]]:
    """All words of each class, from the first list that knows every one of them.

    Args:
        folders: Where to look, the best first.
        wanted: WordNet ids, "n01440764".

    Raises:
        InputError: No list in these folders knows them all.
    """
    ids = set(wanted)
    for path in _iter_lists(folders):
        words = read_synset_words(path)
        if ids <= words.keys():
            return {wnid: words[wnid] for wnid in ids}
    raise InputError(
        "no list of class names for ImageNet's ids",
        why=f"looked for {', '.join(LISTS)} in {', '.join(map(str, folders))}",
        fix=FIX,
    )


def find_all_synsets(folders: Sequence[Path], n_classes: int) -> dict[str, tuple[str, ...]]:
    """The first list of exactly so many classes, by id in ascending order.

    Raises:
        InputError: There is none in these folders.
    """
    for path in _iter_lists(folders):
        words = read_synset_words(path)
        if len(words) == n_classes:
            return dict(sorted(words.items()))
    raise InputError(
        f"no list of the {n_classes:,} classes",
        why=f"looked for {', '.join(LISTS)} in {', '.join(map(str, folders))}",
        fix=FIX,
    )


def read_synset_words(path: Path) -> dict[str, tuple[str, ...]]:
    """The words by WordNet id in such a list; other lines are passed over."""
    text = path.read_text(encoding="utf-8", errors="replace")
    matches = (_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {match[1]: _split(match[2]) for match in matches if match}


def choose_names(words: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """One word per class, the first; where two classes share it, the next that is free.

    Args:
        words: All words of each class by WordNet id.

    Returns:
        Words that differ, in the order of the ids.
    """
    ids = sorted(words)
    chosen = {wnid: words[wnid][0] for wnid in ids}
    chosen |= {wnid: _CRANES[wnid] for wnid in ids if chosen[wnid] == "crane" and wnid in _CRANES}
    shared = Counter(name.casefold() for name in chosen.values())
    taken = set(shared)
    for wnid in ids:
        if shared[chosen[wnid].casefold()] == 1:
            continue
        free = (word for word in words[wnid] if word.casefold() not in taken)
        name = next(free, None)
        if name is not None:
            shared[chosen[wnid].casefold()] -= 1
            chosen[wnid] = name
            taken.add(name.casefold())
            shared[name.casefold()] += 1
    return {wnid: _distinct(chosen, wnid, shared) for wnid in ids}


def _distinct(chosen: Mapping[str, str], wnid: str, shared: Counter[str]) -> str:
    """The name, with the id where no other word distinguishes the classes."""
    name = chosen[wnid]
    return name if shared[name.casefold()] == 1 else f"{name} {wnid}"


def _split(text: str) -> tuple[str, ...]:
    return tuple(
        " ".join(word.replace("_", " ").split()) for word in text.split(",") if word.strip()
    )


def _iter_lists(folders: Sequence[Path]) -> Iterable[Path]:
    for name in LISTS:
        for folder in folders:
            if (folder / name).is_file():
                yield folder / name
