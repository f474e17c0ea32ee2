from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacl.data.pairs import read_pairs
from pacl.text.nouns import Lexicon, extract_nouns

LEXICON = Lexicon.load()
PLAIN_NOUNS = sorted(noun for noun, mark in LEXICON.marks.items() if not mark)
DRAWN = (
    "sky cloud sun moon star mountain hill grass meadow field wheat sea sand beach snow road river "
    "tree pine bush flower house tower castle fence car boat bird balloon person sheep cow tent "
    "umbrella windmill lighthouse mushroom bridge rock"
).split()


def plural(noun: str) -> str:
    """The regular English plural."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def test_the_lexicon_is_clean() -> None:
    assert 1500 <= len(LEXICON) <= 2500
    assert set(LEXICON.marks.values()) == {"", "verb", "adjective"}
    for noun in LEXICON.marks:
        assert noun == " ".join(noun.casefold().split())
        assert len(noun.split()) <= 3


@pytest.mark.parametrize("noun", [*DRAWN, "pine tree"])
def test_what_storybook_draws_is_known(noun: str) -> None:
    assert extract_nouns(f"There is a {noun}.") == (noun,)
    if noun not in ("person", "sheep"):
        assert extract_nouns(f"Three red {plural(noun)} by night.") == (noun,)


@given(st.sampled_from(PLAIN_NOUNS))
def test_every_plain_noun_is_found_in_the_singular(noun: str) -> None:
    assert extract_nouns(f"we saw the {noun.upper()} .") == (noun,)


@given(st.sampled_from([noun for noun in PLAIN_NOUNS if not noun.endswith("s")]))
def test_every_regular_plural_leads_to_a_noun_with_that_plural(noun: str) -> None:
    (found,) = extract_nouns(f"we saw the {plural(noun)} .")
    assert found == noun or found == plural(noun)  # "glasses", "woods" stand for themselves


@pytest.mark.parametrize(
    ("caption", "nouns"),
    [
        ("A red house behind two pine trees at dusk.", ("house", "pine tree")),
        ("Leaves on the bushes, geese and sheep", ("leaf", "bush", "goose", "sheep")),
        ("Women and children; firemen with knives", ("woman", "child", "fireman", "knife")),
        ("Two people and a person", ("person",)),
        ("a girl 's hat and a boy's shoes", ("girl", "hat", "boy", "shoe")),
        ("snow-covered hills, a T-shirt, an ice-cream", ("snow", "hill", "t-shirt", "ice cream")),
        ("canes, planes and boxes", ("cane", "plane", "box")),
        ("hot air balloons over traffic lights", ("hot air balloon", "traffic light")),
        ("glasses on wine glasses", ("glasses", "wine glass")),
        ("Buses, ponies, wolves, calves and cherries", ("bus", "pony", "wolf", "calf", "cherry")),
        ("", ()),
        ("... !!", ()),
        ("quickly running, very happily", ()),
    ],
)  # fmt: skip
def test_captions(caption: str, nouns: tuple[str, ...]) -> None:
    assert extract_nouns(caption) == nouns


@pytest.mark.parametrize(
    ("caption", "nouns"),
    [
        ("the waves on a watch", ("wave", "watch")),
        ("she waves as people watch", ("person",)),
        ("a man leaves a house", ("man", "house")),
        ("a bear can swing", ("bear",)),
        ("children building a sandcastle by the building", ("child", "sandcastle", "building")),
        ("a man in an orange shirt", ("man", "shirt")),
        ("an orange and white dog", ("dog",)),
        ("she eats an orange.", ("orange",)),
        ("oranges on a light green table", ("orange", "table")),
        ("small purple happy large wooden", ()),
    ],
)
def test_verbs_and_adjectives_are_no_nouns(caption: str, nouns: tuple[str, ...]) -> None:
    assert extract_nouns(caption) == nouns


def test_another_lexicon() -> None:
    lexicon = Lexicon(marks={"gizmo": "", "red gizmo": ""})
    assert extract_nouns("Gizmos, a red gizmo and a dog", lexicon=lexicon) == ("gizmo", "red gizmo")


@settings(max_examples=40)
@given(st.text(max_size=30))
def test_any_text_gives_unique_known_nouns(caption: str) -> None:
    nouns = extract_nouns(caption)
    assert len(set(nouns)) == len(nouns)
    assert all(noun in LEXICON for noun in nouns)


def test_real_captions_nearly_all_have_nouns(flickr_pairs) -> None:
    captions = [each for group in read_pairs(flickr_pairs).captions[::4] for each in group[:1]]
    found = [extract_nouns(caption) for caption in captions]
    assert sum(map(bool, found)) / len(captions) > 0.98
    assert 2 < sum(map(len, found)) / len(captions) < 4
