"""A trained embedder on the Hugging Face hub: found, described on a card, and uploaded.

Only the trained part goes there. Its towers stay where they are, and config.json names them, so
they must have names that mean something on other machines.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pacl.errors import EnvironmentProblem, InputError
from pacl.modeling.names import CONFIG, STORYBOOK
from pacl.modeling.towers import files
from pacl.runtime.files import write_atomically

CARD = "README.md"
TOO_MANY, SERVER_ERROR = 429, 500
"""HTTP statuses, the second and above, that are no fault of the user's."""
TOWERS = ("encoder", "vision", "text")
"""Keys of config.json that name a tower."""
PATHS = ("data", "output", "model", "vision", "text")
"""Options of a training run that may be paths: their last names are kept."""


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


def find_checkpoint(source: str | Path) -> Path:
    """Return a local directory as it is, anything else downloaded from the hub.

    Raises:
        InputError: Neither a directory nor a model on the hub.
        EnvironmentProblem: The hub cannot be reached.
    """
    return Path(source) if Path(source).is_dir() else files.download_checkpoint(str(source))


def make_shareable(directory: Path, names: Mapping[str, str]) -> dict[str, Any]:
    """Rewrite a checkpoint's config.json without paths of this machine, and return it.

    Args:
        directory: The checkpoint.
        names: Hub ids of towers that it names by a path, by their key: encoder, vision or text.

    Raises:
        InputError: A tower is named by a path, and `names` has no other name for it.
    """
    config = files.read_json(directory / CONFIG)
    for key in TOWERS:
        if key not in config:
            continue
        config[key] = names.get(key) or config[key]
        if config[key].endswith(f"models/{STORYBOOK}"):
            config[key] = STORYBOOK
        if config[key] != STORYBOOK and (Path(config[key]).exists() or config[key].count("/") != 1):
            raise InputError(
                f"the {key} is named by a path, {config[key]}, which others do not have",
                fix=f'give its id on the hub: towers={{"{key}": "openai/clip-vit-base-patch16"}}',
            )
    options = config.get("training", {}).get("config", {})
    for name in PATHS:
        if options.get(name) and (options[name].count("/") != 1 or Path(options[name]).exists()):
            options[name] = Path(options[name]).name
    write_atomically(directory / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    return config


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
        "## Scores",
        _describe_scores([files.read_json(path) for path in card.scores]),
    ]
    lines += ["## Limits", card.notes] if card.notes else []
    return "\n\n".join(lines) + "\n"


def push(directory: Path, repo_id: str, *, private: bool | None, revision: str | None) -> str:
    """Upload a directory as a model, and return its address.

    Args:
        directory: The checkpoint and its card.
        repo_id: Made where it does not exist.
        private: Whether only its owner sees a new one.
        revision: The branch to commit to; None: the main one.

    Raises:
        InputError: The hub refuses: no such owner, or no right to write there.
        EnvironmentProblem: The hub cannot be reached, or no upload is possible offline.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit: Any = api.upload_folder(
            repo_id=repo_id,
            folder_path=directory,
            commit_message="Upload a PACL embedder",
            revision=revision,
        )
    except HFValidationError as error:
        raise InputError(f"{repo_id!r} is no name of a model on the hub", why=str(error)) from None
    except OfflineModeIsEnabled as error:
        raise EnvironmentProblem(
            f"cannot upload {repo_id}: the hub is switched off",
            why=str(error),
            fix="unset HF_HUB_OFFLINE",
        ) from None
    except HfHubHTTPError as error:
        if error.response.status_code == TOO_MANY or error.response.status_code >= SERVER_ERROR:
            raise EnvironmentProblem(
                f"cannot upload {repo_id}: the hub does not work just now", why=str(error)
            ) from None
        raise InputError(
            f"the hub refuses to take {repo_id}",
            why=str(error),
            fix="hf auth login, or another name",
        ) from None
    except Exception as error:  # the hub's client lets many kinds of network error through
        raise EnvironmentProblem(
            f"cannot upload {repo_id}: the hub cannot be reached", why=str(error)
        ) from error
    return str(commit.commit_url)


def _describe_training(training: Mapping[str, Any]) -> str:
    options: Mapping[str, Any] = training.get("config", {})
    if not options:
        return "Not recorded in the checkpoint."
    words = ["pacl", "train"]
    for name, value in options.items():
        if value is not None and value is not False:
            flag = f"--{name.replace('_', '-')}"
            words += [flag] if value is True else [flag, str(value)]
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
