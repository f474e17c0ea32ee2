"""Prompt templates and class names: strings only, no tensors.

A class is shown to CLIP as a short sentence: its name put into a template. Several templates are
averaged (paper section A.2.2: seven of CLIP's; common practice elsewhere: CLIP's eighty).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacl.errors import InputError

PAPER7 = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""The seven templates of the PACL paper (section A.2.2); "itap" is "I took a picture"."""

SIMPLE = ("a photo of a {}.",)
"""One plain template."""

IMAGENET80 = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)
"""The eighty templates that CLIP's authors published for ImageNet; their spelling is kept."""

TEMPLATES: dict[str, tuple[str, ...]] = {
    "paper7": PAPER7,
    "simple": SIMPLE,
    "imagenet80": IMAGENET80,
}
"""The template sets by the name that the command line uses."""


def describe_templates(templates: Sequence[str]) -> str:
    """Their number, and the name of the set where it has one: "paper7 (7)"."""
    known = {of_set: name for name, of_set in TEMPLATES.items()}
    return f"{known.get(tuple(templates), 'own')} ({len(templates)})"


@dataclass(frozen=True)
class Labels:
    """The classes to look for, in order; class k of a result is `names[k]`.

    Attributes:
        names: one unique, non-empty name per class.
        prompts: per class the words that stand for it (synonyms), at least one each. Usually
            just the name.
    """

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)


def fill_templates(name: str, templates: Sequence[str]) -> list[str]:
    """Put one name into every template, in order (paper section A.2.2).

    Raises:
        ValueError: a template has no `{}`, so the name would be lost.
    """
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"template {template!r} has no {{}} for the name")
    return [template.replace("{}", name) for template in templates]


def parse_labels(
    labels: str | Path | Labels | Sequence[str] | Mapping[str, str | Sequence[str]],
) -> Labels:
    """Read class names in any of the forms that people have them in.

    Args:
        labels: `"sky,road"`; a `.txt` file with one name per line; a `.json` file holding a list,
            a `{"class": ["synonym", ...]}` object or a data set's `classes.json`; or the same as
            a Python list or mapping. With a mapping, the synonyms *replace* the name as prompts.

    Returns:
        the labels, white space tidied, in the order given.

    Raises:
        InputError: no labels, an empty or repeated one (upper and lower case count as the same),
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
