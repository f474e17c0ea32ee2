"""Build a model of transformers from a checkpoint's own files, whole or not at all."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pacl.errors import InputError
from pacl.modeling.towers import files
from pacl.modeling.towers.families import PAIRS


def build_pretrained(
    architecture: str,
    directory: Path,
    *,
    config: Any = None,
    weights: dict[str, Tensor],
    **options: Any,
) -> Any:
    """Build a model and fill it, in float32 and in evaluation mode.

    Args:
        architecture: The model's class in transformers.
        directory: Holds config.json.
        config: A configuration in place of that file's.
        weights: As they are stored; transformers knows the names that a family had before.
        options: Arguments of the class.

    Raises:
        InputError: The configuration is impossible, or weights are missing or do not fit.
    """
    import transformers

    config = read_config(directory) if config is None else config
    with _silence():
        try:
            model, found = getattr(transformers, architecture).from_pretrained(
                None,
                config=config,
                state_dict=weights,
                output_loading_info=True,
                dtype=torch.float32,
                **options,
            )
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the weights in {directory} do not fit its {files.CONFIG}", why=str(error)
            ) from None
    wrong = sorted({str(key) for key in (*found["missing_keys"], *found["mismatched_keys"])})
    if wrong:
        raise InputError(
            f"the weights in {directory} are not those that its {files.CONFIG} describes",
            why=f"missing, or of another shape, {len(wrong)}: {', '.join(wrong[:3])}",
        )
    return model.requires_grad_(False).eval()


def build_half(
    half: Literal["vision", "text"], directory: Path, *, config: Any, weights: dict[str, Tensor]
) -> tuple[Any, Any]:
    """Build a model of two towers, and return one of them beside the whole.

    The whole is built even so: only it knows the names that the checkpoint's weights have.
    """
    whole = build_pretrained(PAIRS[config.model_type], directory, config=config, weights=weights)
    return getattr(whole, f"{half}_model"), whole


def read_config(directory: Path) -> Any:
    """Read config.json as transformers does.

    Raises:
        InputError: It describes no model that transformers knows.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True)
    except (StrictDataclassError, TypeError, ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{directory / files.CONFIG} describes no model that transformers knows",
            why=str(error),
        ) from None


@contextmanager
def _silence() -> Generator[None]:
    """Keep transformers' progress bar and report of loading off the terminal: we say it."""
    from transformers.utils import logging

    had_bar, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bar:
            logging.enable_progress_bar()
