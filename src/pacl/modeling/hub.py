"""A trained embedder on the Hugging Face hub: found and uploaded.

Only the trained part goes there. Its towers stay where they are, and config.json names them, so
they must have names that mean something on other machines.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pacl.errors import EnvironmentProblem, InputError
from pacl.modeling.card import TOWERS
from pacl.modeling.names import CONFIG, STORYBOOK
from pacl.modeling.towers import files
from pacl.runtime.files import write_atomically

TOO_MANY, SERVER_ERROR = 429, 500
"""HTTP statuses, the second and above, that are no fault of the user's."""
PATHS = ("data", "output", "model", "vision", "text", "val")
"""Options of a training run that may be paths: their last names are kept."""


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
    options.pop("probe_images", None)
    for name in PATHS:
        if options.get(name) and (options[name].count("/") != 1 or Path(options[name]).exists()):
            options[name] = Path(options[name]).name
    write_atomically(directory / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    return config


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
