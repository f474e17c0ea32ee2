"""Class names and their prompts, in any form that people have them in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pacl.errors import InputError


@dataclass(frozen=True)
class Labels:
    """The classes to look for, in order; class k of a result is `names[k]`.

    Attributes:
        names: One unique, non-empty name per class.
        prompts: Per class the words that stand for it (synonyms), at least one each. Usually
            just the name.
        background: Words for what is none of the classes: they compete, and where one of them
            wins, there is no label.
    """

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    background: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


def parse_labels(
    labels: str | Path | Labels | Sequence[str] | Mapping[str, str | Sequence[str]],
) -> Labels:
    """Read class names in any of the forms that people have them in.

    Args:
        labels: `"sky,road"`; a `.txt` file with one name per line; a `.json` file holding a list,
            a `{"class": ["synonym", ...]}` object or a data set's `classes.json`; or the same as
            a Python list or mapping. With a mapping, the synonyms *replace* the name as prompts.

    Returns:
        The labels, white space tidied, in the order given.

    Raises:
        InputError: No labels, an empty or repeated one (upper and lower case count as the same),
            or a file that cannot be read.
    """
    if isinstance(labels, Labels):
        return labels
    if isinstance(labels, Path) or (isinstance(labels, str) and _is_label_file(labels)):
        labels = _read_label_file(Path(labels))
    elif isinstance(labels, str):
        labels = labels.split(",")
    if isinstance(labels, Mapping):
        classes = {name: _as_prompts(name, prompts) for name, prompts in labels.items()}
        return _checked(list(classes), list(classes.values()))
    return _checked(list(labels), [[name] for name in labels])


def with_background(labels: Labels, words: Sequence[str]) -> Labels:
    """Add words for what is none of the classes.

    Raises:
        InputError: One is empty, or stands for a class already.
    """
    background = tuple(_tidy(word) for word in (*labels.background, *words))
    _refuse_duplicates([*background, *(prompt for group in labels.prompts for prompt in group)])
    return replace(labels, background=background)


def fill_templates(name: str, templates: Sequence[str]) -> list[str]:
    """Put one name into every template, in order (paper section A.2.2).

    Raises:
        ValueError: A template has no `{}`, so the name would be lost.
    """
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"template {template!r} has no {{}} for the name")
    return [template.replace("{}", name) for template in templates]


def _is_label_file(text: str) -> bool:
    return text.lower().endswith((".txt", ".json"))


def _read_label_file(path: Path) -> list[Any] | dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f"label file not found: {path}", fix='give a file, or the names: --labels "sky,road"'
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read label file {path}", why=str(error), fix="save it as UTF-8 text"
        ) from error
    if path.suffix.lower() == ".json":
        return _parse_label_json(text, path)
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if any("," in name for name in names):
        raise InputError(
            f"a comma in label file {path}",
            why="a text file holds one class per line",
            fix='one name per line; for synonyms a .json file: {"car": ["car", "van"]}',
        )
    return names


def _parse_label_json(text: str, path: Path) -> list[Any] | dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"label file {path} is not valid JSON", why=str(error)) from error
    if isinstance(content, dict) and isinstance(content.get("labels"), list):
        content = content["labels"]  # a data set's classes.json
    if not isinstance(content, list | dict):
        raise InputError(
            f"label file {path} holds neither a list nor an object",
            fix='["sky", "road"] or {"car": ["car", "van"]}',
        )
    return content


def _as_prompts(name: object, prompts: object) -> list[Any]:
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, Sequence) or not prompts:
        raise InputError(
            f"label {name!r} has no prompts",
            fix=f'give at least one: {{"{name}": ["{name}"]}}, or a plain list of names',
        )
    return list(prompts)


def _checked(names: list[Any], prompts: list[list[Any]]) -> Labels:
    """Tidy white space; refuse what would give a class no text, or two classes the same one."""
    if not names:
        raise InputError("no labels given", fix='name at least one class: --labels "sky,road"')
    tidy_names = tuple(_tidy(name) for name in names)
    tidy_prompts = tuple(tuple(_tidy(prompt) for prompt in group) for group in prompts)
    _refuse_duplicates(tidy_names)
    _refuse_duplicates([prompt for group in tidy_prompts for prompt in group])
    return Labels(names=tidy_names, prompts=tidy_prompts)


def _tidy(name: object) -> str:
    if not isinstance(name, str):
        raise InputError(f"label {name!r} is not text", fix="give class names, not ids")
    tidy = " ".join(name.split())
    if not tidy:
        raise InputError("an empty label", fix="remove the empty name or the extra comma")
    return tidy


def _refuse_duplicates(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise InputError(
                f"label {name!r} is given twice",
                why="two classes with the same text cannot be told apart",
                fix="remove one of them",
            )
        seen.add(name.casefold())
