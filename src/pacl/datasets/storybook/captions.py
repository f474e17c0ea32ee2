"""What a person might say of a scene: natural English that names only some of what is visible."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

import numpy as np

from pacl.datasets.storybook.scene import IN_THE_SKY, Item, Scene

_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
_PLURALS = {"person": "people", "sheep": "sheep", "bush": "bushes"}
_ADJECTIVES: dict[str, tuple[str, ...]] = {
    "sun": ("bright", "golden", "warm"),
    "moon": ("full", "pale", "round"),
    "tree": ("leafy", "big", "green", "round"),
    "pine tree": ("dark", "tall", "slender"),
    "bush": ("small", "low", "round"),
    "fence": ("wooden", "brown", "long"),
    "sheep": ("woolly", "fluffy", "white"),
}
#: A place phrase per stuff class; {} takes an adjective of the time of day where one fits.
_PLACES: dict[str, tuple[str, ...]] = {
    "cloud": ("under white clouds", "below a cloud", "with clouds above", "under soft clouds"),
    "mountain": ("near a mountain", "below snowy mountains", "with mountains far away"),
    "hill": ("near a green hill", "with rolling hills behind", "below a hill"),
    "grass": ("on the grass", "on green grass", "in the grass"),
    "field": ("in a golden field", "by a field", "in a wheat field"),
    "sea": ("by the sea", "near the blue sea", "at the sea"),
    "sand": ("on the sand", "on yellow sand", "on the warm sand"),
    "snow": ("in the snow", "on white snow", "in deep snow"),
    "road": ("by the road", "beside a grey road", "near a road"),
    "river": ("by the river", "near a winding river", "beside a river"),
}
_SKIES = {
    "day": ("under a blue sky", "under a clear sky", "under the sky"),
    "dusk": ("under a pink sky", "under an evening sky", "under a red sky"),
    "night": ("under a dark sky", "under a starry sky", "under the night sky"),
}
_STUFF_SUBJECTS: dict[str, tuple[str, ...]] = {
    "sky": ("a wide sky", "the open sky"),
    "cloud": ("white clouds", "a big cloud", "fluffy clouds"),
    "mountain": ("a snowy mountain", "grey mountains", "high mountains"),
    "hill": ("a green hill", "rolling hills", "a round hill"),
    "grass": ("green grass", "fresh grass", "tall grass"),
    "field": ("a golden field", "a field of wheat", "a ripe field"),
    "sea": ("the blue sea", "the deep sea", "a calm sea"),
    "sand": ("yellow sand", "warm sand", "soft sand"),
    "snow": ("white snow", "deep snow", "fresh snow"),
    "road": ("a grey road", "an empty road", "a quiet road"),
    "river": ("a winding river", "a small river", "a clear river"),
}
_TIMES = {
    "day": ("on a sunny day", "in the daytime", "on a fine day"),
    "dusk": ("at dusk", "in the evening", "at sunset"),
    "night": ("at night", "late at night", "after dark"),
}
_OPENINGS = ("", "", "", "", "a picture of ", "a drawing of ", "a page with ")


def with_article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def with_adjective(adjective: str, label: str, noun: str) -> str:
    """'red house', 'person in red', 'house'."""
    if not adjective:
        return noun
    return f"{noun} in {adjective}" if label == "person" else f"{adjective} {noun}"


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _thing_phrase(rng: np.random.Generator, alike: Sequence[Item]) -> str:
    """'a red house', 'two pine trees', 'a tree'."""
    item = alike[0]
    adjective = item.colour or (_pick(rng, _ADJECTIVES[item.label]) if rng.random() < 0.5 else "")
    if item.colour and rng.random() < 0.12:
        adjective = ""
    if len(alike) > 1:
        plural = _PLURALS.get(item.label, item.label + "s")
        return f"{_NUMBERS[len(alike)]} {with_adjective(adjective, item.label, plural)}"
    phrase = with_adjective(adjective, item.label, item.label)
    if item.label in ("sun", "moon") and not adjective:
        return f"the {phrase}"
    return with_article(phrase)


def _relation(rng: np.random.Generator, first: Item, second: Item) -> str:
    """A word for where `first` is, seen from `second`."""
    is_high = [item.label in IN_THE_SKY for item in (first, second)]
    if is_high == [True, False]:
        return "above"
    if is_high == [False, True]:
        return _pick(rng, ("below", "under"))
    if all(is_high):
        return _pick(rng, ("beside", "near", "and"))
    gap_x, gap_y = abs(first.x - second.x), first.y - second.y
    if gap_x < 0.3 and abs(gap_y) > 0.04:
        return "in front of" if gap_y > 0 else "behind"
    return _pick(rng, ("beside", "near", "and"))


def describe(scene: Scene, visible: Collection[str], rng: np.random.Generator) -> str:
    """One caption.

    Args:
        visible: The classes with enough pixels to be seen; the caption names one to four of them.
        rng: Decides what is named and how.

    Returns:
        Lower-case English without a full stop, such as "a red house behind two pine trees at dusk".
    """
    seen_items = sorted((i for i in scene.items if i.label in visible), key=_kind)
    groups = [list(alike) for _, alike in groupby(seen_items, key=_kind)]
    things = [groups[i] for i in rng.permutation(len(groups))][: int(rng.integers(1, 4))]
    stuff = [label for label in sorted(visible) if label in _STUFF_SUBJECTS]
    stuff = [stuff[i] for i in rng.permutation(len(stuff))][: int(rng.integers(0, 3))]
    if not things and not stuff:
        stuff = [label for label in ("sky", *_PLACES) if label in visible][:1]
    words: list[str] = []
    if things:
        words.append(_join_things(rng, things))
    elif stuff:
        words.append(_pick(rng, _STUFF_SUBJECTS[stuff.pop()]))
    words += [_place(rng, label, scene.time) for label in stuff]
    if rng.random() < 0.25:
        words.append(_pick(rng, _TIMES[scene.time]))
    return _pick(rng, _OPENINGS) + " ".join(words)


def _kind(item: Item) -> tuple[str, str]:
    return item.label, item.colour


def _place(rng: np.random.Generator, label: str, time: str) -> str:
    return _pick(rng, _SKIES[time] if label == "sky" else _PLACES[label])


def _join_things(rng: np.random.Generator, groups: Sequence[Sequence[Item]]) -> str:
    phrases = [_thing_phrase(rng, group) for group in groups]
    if len(phrases) == 1:
        return phrases[0]
    if len(phrases) == 2 or rng.random() < 0.5:
        first = f"{phrases[0]} {_relation(rng, groups[0][0], groups[1][0])} {phrases[1]}"
        return " and ".join([first, *phrases[2:]])
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"
