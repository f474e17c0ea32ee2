"""What a trained model is, for people: the card of its page on the hub, and of its run."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pacl.modeling.names import STORYBOOK
from pacl.modeling.towers import files

HUB_CARD = "README.md"
RUN_CARD = "card.md"
TOWERS = ("encoder", "vision", "text")
"""Keys of config.json that name a tower."""


@dataclass(frozen=True)
class Card:
    """What a reader must know before using an embedder, and its checkpoint does not say."""

    licence: str
    """The hub's identifier of the licence of the trained weights, such as "apache-2.0"."""

    data: str
    """What it was trained on, in a sentence or two: source, number of pairs, licence."""

    tower_licences: Mapping[str, str] = field(default_factory=dict[str, str])
    """Licence of each tower, by its name in config.json."""

    scores: Sequence[Path] = ()
    """Files that `pacl evaluate` wrote: data set, protocol and scores are copied from them."""

    notes: str = ""
    """Limits, in Markdown."""


def write_card(config: Mapping[str, Any], card: Card, repo_id: str, description: str) -> str:
    """Return the model card: metadata that the hub reads, then Markdown.

    Args:
        config: The checkpoint's, made shareable.
        card: What it does not say.
        repo_id: The model's name on the hub.
        description: The model in one sentence.
    """
    from huggingface_hub import ModelCardData

    towers = [(key, config[key]) for key in TOWERS if key in config]
    metadata = ModelCardData(
        license=card.licence,
        library_name="pacl",
        pipeline_tag="image-segmentation",
        tags=["pacl", "open-vocabulary", "semantic-segmentation"],
        base_model=list(dict.fromkeys(name for _, name in towers if name != STORYBOOK)) or None,
    )
    lines = [
        f"---\n{metadata.to_yaml()}\n---",
        f"# {repo_id.split('/')[-1]}",
        f"{description} It segments images by any words; trained on image–caption pairs alone "
        "([PACL](https://arxiv.org/abs/2212.04994)). Only the trained part is stored here.",
        f'```python\nimport pacl\n\nmodel = pacl.load("{repo_id}")\n'
        'model.segment("street.jpg", ["road", "car", "person"]).overlay().show()\n```',
        "## Towers",
        _table(
            ["tower", "frozen weights", "licence"],
            [[key, name, card.tower_licences.get(name, "see its page")] for key, name in towers],
        ),
        "## Data",
        card.data,
        "## Training",
        _describe_training(config.get("training", {})),
        *describe_numbers(config.get("training", {}).get("numbers", {})),
        "## Scores",
        _describe_scores([files.read_json(path) for path in card.scores]),
    ]
    lines += ["## Limits", card.notes] if card.notes else []
    return "\n\n".join(lines) + "\n"


def write_run_card(
    training: Mapping[str, Any],
    *,
    description: str,
    towers: Sequence[tuple[str, str, str]],
    data: str,
) -> str:
    """Return the card of a training run, in Markdown.

    Args:
        training: The facts of its checkpoint: step, settings, fingerprint of the data, numbers.
        description: The model in one sentence.
        towers: Role, name and fingerprint of each tower that it began with.
        data: What was read, a fact per line.
    """
    output = training.get("config", {}).get("output", "RUN")
    lines = [
        f"# {Path(output).name}",
        f"{description} Trained on image–caption pairs alone, {training['step']:,} of "
        f"{training['n_steps']:,} steps. Method: [PACL](https://arxiv.org/abs/2212.04994).",
        f'```\npacl segment PHOTOS --labels "sky,road,tree" --model {shlex.quote(output)}\n```',
        "## Towers",
        _table(["tower", "weights at the start", "fingerprint"], towers),
        "## Data",
        "\n".join(_nested(line) for line in data.splitlines()),
        f"Fingerprint of names and captions: `{training['data']}`",
        "## Training",
        _describe_training(training),
        "## Numbers",
        "\n".join(f"- {line}" for line in describe_numbers(training.get("numbers", {}))),
    ]
    return "\n\n".join(lines) + "\n"


def _nested(line: str) -> str:
    """Return a line as an item of a list; an indented one belongs to the item before it."""
    return f"{'  ' if line.startswith(' ') else ''}- {line.strip()}"


def describe_numbers(numbers: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence on what each figure of a run means, beside its value at chance.

    Args:
        numbers: Of one step; "held_out" is a sentence already.
    """
    if "loss_captions" in numbers:
        n_images = numbers["batch_size"]
        yield (
            f"loss per caption {numbers['loss_captions']:.2f}: chance is "
            f"{math.log(n_images):.2f}, the logarithm of the batch size"
        )
        if numbers["loss_nouns"] is not None:
            yield (
                f"loss per noun {numbers['loss_nouns']:.2f}, before its weight: each noun of the "
                "captions is told apart from the others"
            )
        yield (
            f"in-batch accuracy {numbers['accuracy']:.1%}: an image finds its caption among "
            f"{n_images:,}; chance is {1 / n_images:.1%}"
        )
    if "held_out" in numbers:
        yield numbers["held_out"]


def _describe_training(training: Mapping[str, Any]) -> str:
    options: Mapping[str, Any] = training.get("config", {})
    if not options:
        return "Not recorded in the checkpoint."
    words = ["pacl", "train"]
    for name, value in options.items():
        if value is None or value is False or value in ("", (), []):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words += map(str, value) if isinstance(value, list | tuple) else [str(value)]
    return (
        f"{training.get('step', '?')} steps with pacl, every option written out:\n\n"
        f"```\n{shlex.join(words)}\n```"
    )


def _describe_scores(records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return "None measured."
    parts: list[str] = []
    for record in records:
        protocol = record.get("protocol") or record.get("settings") or {}
        rows: Mapping[str, Mapping[str, Any]] = record["rows"]
        figures = [
            [row, name, f"{value:.4f}"]
            for row, values in rows.items()
            for name, value in values.items()
            if isinstance(value, float)
        ]
        parts.append(
            f"**{record['benchmark']}**, {record['n_images']} images\n\n"
            f"{_table(['method', 'figure', 'value'], figures)}\n\n"
            f"Protocol: `{json.dumps(protocol, ensure_ascii=False)}`"
        )
    return "\n\n".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
