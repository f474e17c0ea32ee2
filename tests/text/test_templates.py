from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacl.errors import InputError
from pacl.text.labels import Labels, fill_templates, parse_labels
from pacl.text.templates import IMAGENET80, PAPER7, TEMPLATES

NAMES = st.lists(
    st.text(st.characters(exclude_characters=",", exclude_categories=("Cc", "Cs")), min_size=1)
    .map(lambda text: " ".join(text.split()))
    .filter(lambda name: name and not name.lower().endswith((".txt", ".json"))),
    min_size=1,
    max_size=6,
    unique_by=str.casefold,
)


def test_paper7_is_the_papers_list() -> None:
    assert PAPER7 == (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    )


def test_template_sets_hold_a_place_for_the_name_and_no_template_twice() -> None:
    assert {name: len(set(each)) for name, each in TEMPLATES.items()} == {
        "paper7": 7,
        "simple": 1,
        "imagenet80": 80,
    }
    assert all(t.count("{}") == 1 for each in TEMPLATES.values() for t in each)
    assert set(PAPER7) <= set(IMAGENET80)


def test_fill_templates_keeps_order_and_odd_names() -> None:
    assert fill_templates("a {0} {}", ("x {}.", "{} y")) == ["x a {0} {}.", "a {0} {} y"]
    with pytest.raises(ValueError, match=r"no \{\}"):
        fill_templates("sky", ("a photo.",))


@given(NAMES)
def test_text_list_mapping_and_files_agree(names: list[str]) -> None:
    expected = Labels(tuple(names), tuple((name,) for name in names))
    assert parse_labels(" , ".join(names)) == expected
    assert parse_labels(names) == expected
    assert parse_labels({name: name for name in names}) == expected
    assert parse_labels(expected) is expected


@pytest.mark.parametrize("content", [["sky", "road"], {"labels": ["sky", "road"], "ignore": [255]}])
def test_json_files(tmp_path: Path, content: object) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    assert parse_labels(path).names == ("sky", "road")
    assert parse_labels(str(path)) == parse_labels(path)


def test_synonyms_replace_the_name(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('{"car": ["car", "a  van"], "sky": "blue sky"}', encoding="utf-8")
    labels = parse_labels(path)
    assert labels == Labels(("car", "sky"), (("car", "a van"), ("blue sky",)))
    assert len(labels) == 2


def test_text_file_has_one_name_per_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffsky\r\n\r\n  fire   hydrant \r\n".encode())
    assert parse_labels(str(path)).names == ("sky", "fire hydrant")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", "an empty label"),
        ("sky,,road", "an empty label"),
        ("sky,", "an empty label"),
        ([], "no labels"),
        ({}, "no labels"),
        (["sky", "  "], "an empty label"),
        ("sky, road,Sky", "'Sky' is given twice"),
        ({"car": ["van", "auto"], "truck": ["truck", "van"]}, "'van' is given twice"),
        ({"car": []}, "'car' has no prompts"),
    ],
)
def test_labels_that_cannot_work(labels: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_labels(labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [[1, 2], {"car": [3]}])
@pytest.mark.usefixtures("unchecked_shapes")
def test_labels_that_are_no_text(labels: object) -> None:
    with pytest.raises(InputError, match="is not text"):
        parse_labels(labels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.json", b"{", "not valid JSON"),
        ("labels.json", b"3", "neither a list nor an object"),
        ("labels.json", b"[]", "no labels"),
        ("labels.json", b"[1]", "is not text"),
        ("labels.txt", b"\n\n", "no labels"),
        ("labels.txt", b"sky,road", "a comma in label file"),
        ("labels.txt", b"caf\xe9", "cannot read label file"),
    ],
)
def test_label_files_that_cannot_work(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        parse_labels(path)


def test_a_missing_label_file_is_named() -> None:
    with pytest.raises(InputError, match=r"label file not found: nowhere\.txt"):
        parse_labels("nowhere.txt")
