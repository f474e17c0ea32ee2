"""What a resumed run needs beside the model, and whether it may resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pacl.errors import InputError
from pacl.modeling.card import RUN_CARD, write_run_card
from pacl.modeling.pacl import Pacl
from pacl.runtime import distributed
from pacl.runtime.files import recover, replace_directory, write_atomically
from pacl.training.config import TrainConfig
from pacl.training.setup import Setup

TENSORS_FILE = "trainer.safetensors"
INFO_FILE = "trainer.json"


class Checkpoints:
    """The newest and the best checkpoint of a run, written by the first process and read by all.

    Args:
        config: Names the run directory.
        setup: Writes the model, and says what it is trained on.
        log_scale: Logarithm of the logit scale.
        parameters: All that is trained, by name.
        optimiser: Its moments are saved too.
    """

    def __init__(
        self,
        config: TrainConfig,
        setup: Setup,
        log_scale: Tensor,
        parameters: dict[str, nn.Parameter],
        optimiser: torch.optim.Optimizer,
    ) -> None:
        self.last_dir = config.output / "last"
        self.best_dir = config.output / "best"
        self._setup, self._log_scale = setup, log_scale
        self._parameters, self._optimiser = parameters, optimiser
        self._facts: dict[str, Any] = {
            "n_steps": setup.n_steps,
            "data": setup.data_fingerprint,
            "config": config.to_json(),
        }
        self._first_step = 0

    def resume(self, saved: dict[str, Any] | None) -> int:
        """Restore the checkpoint in all processes and return the number of steps done.

        Args:
            saved: Its facts, see `find_checkpoint`; None where there is none.

        Raises:
            InputError: It is of other data, or damaged.
        """
        if saved is not None:
            check_same_data(saved, self._facts["data"], self.last_dir)
            load_trainer_state(self.last_dir, self._parameters, self._optimiser)
            self._first_step = saved["step"]
        distributed.take_from_first(self._parameters.values())
        return self._first_step

    def save(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Replace the newest checkpoint with the state after a step.

        Args:
            step: Steps done.
            numbers: Figures of the run for its card, see `pacl.modeling.card.describe_numbers`.
        """
        if distributed.rank() == 0:
            self._replace(self.last_dir, step, numbers, is_whole=True)
        distributed.wait_for_all()

    def save_best(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Replace the best checkpoint, which is the model alone; for the first process."""
        self._replace(self.best_dir, step, numbers, is_whole=False)

    def save_if_sound(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Save the state before a step that went wrong, without waiting for other processes."""
        is_new = distributed.rank() == 0 and step > self._first_step
        if is_new and all(p.isfinite().all() for p in self._parameters.values()):
            self._replace(self.last_dir, step, numbers, is_whole=True)

    def as_model(self) -> Pacl:
        """Return the model as it is now, see `Objective.as_model`."""
        return self._setup.objective.as_model(self._log_scale.exp().item())

    def _replace(
        self, directory: Path, step: int, numbers: Mapping[str, Any], *, is_whole: bool
    ) -> None:
        facts = self._facts | {"step": step, "numbers": dict(numbers)}
        card = write_run_card(
            facts,
            description=self._setup.objective.describe(),
            towers=self._setup.towers,
            data=self._setup.pairs.summary(),
        )
        replace_directory(directory, partial(self._write, facts, card, is_whole))
        if is_whole:
            write_atomically(directory.with_name(RUN_CARD), card.encode())

    def _write(self, facts: dict[str, Any], card: str, is_whole: bool, directory: Path) -> None:
        scale = self._log_scale.exp().item()
        self._setup.objective.save(directory, logit_scale=scale, training=facts)
        (directory / RUN_CARD).write_text(card, encoding="utf-8")
        if is_whole:
            save_trainer_state(directory, self._parameters, self._optimiser, facts)


def save_trainer_state(
    directory: Path,
    parameters: dict[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    info: dict[str, Any],
) -> None:
    """Write what a resumed run needs beside the model: weights, optimiser moments, facts.

    Args:
        directory: Existing directory to write into.
        parameters: The trained parameters by name; nothing frozen.
        optimiser: Their optimiser; its state tensors are saved under the parameters' names.
        info: JSON values (step, config, ...).
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        for key, value in optimiser.state[parameter].items():
            tensors[f"{key}/{name}"] = value.contiguous()
    # Bytes through Python, not save_file: a full disk is then an ordinary OSError.
    data = safetensors.torch.save({name: tensor.cpu() for name, tensor in tensors.items()})
    (directory / TENSORS_FILE).write_bytes(data)
    (directory / INFO_FILE).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def read_trainer_info(directory: Path) -> dict[str, Any]:
    """The JSON facts of a checkpoint.

    Raises:
        InputError: The directory holds no trainer state, or a damaged one.
    """
    try:
        return json.loads((directory / INFO_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{directory} is not a checkpoint of a training run",
            why=f"{INFO_FILE}: {error}",
            fix="choose another --output, or remove this directory to start over",
        ) from error


def load_trainer_state(
    directory: Path,
    parameters: dict[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
) -> None:
    """Put saved weights and optimiser moments back, in place.

    Raises:
        InputError: The file is truncated or belongs to other parameters.
    """
    path = directory / TENSORS_FILE
    try:
        saved = safetensors.torch.load_file(path)
        for name, parameter in parameters.items():
            with torch.no_grad():
                parameter.copy_(saved.pop(f"weight/{name}"))
            state = {key: saved.pop(f"{key}/{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            moved = {k: v if k == "step" else v.to(parameter) for k, v in state.items()}
            optimiser.state[parameter] = moved
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(
            f"{path} cannot be resumed from",
            why=f"damaged, or of another model: {error}",
            fix=f"remove {directory} to start over",
        ) from error
    if saved:
        raise InputError(
            f"{path} cannot be resumed from",
            why=f"it holds parameters that this run does not train: {', '.join(sorted(saved)[:3])}",
            fix=f"remove {directory} to start over",
        )


def find_checkpoint(last_dir: Path, config: TrainConfig) -> dict[str, Any] | None:
    """Facts of the checkpoint that a run resumes from; None where there is none.

    Raises:
        InputError: It is of a run with other settings, damaged, or not the same for all processes.
    """
    if distributed.rank() == 0:
        recover(last_dir)
        recover(last_dir.with_name("best"))
    distributed.wait_for_all()
    saved = _read_resumable(last_dir, config)
    found = distributed.gather_values(None if saved is None else saved["step"])
    if len(set(found)) > 1:
        raise InputError(
            f"the processes do not see the same {last_dir}",
            why=f"steps in their checkpoints: {', '.join(map(str, found))}",
            fix="give an --output that all machines share",
        )
    return saved


def _read_resumable(last_dir: Path, config: TrainConfig) -> dict[str, Any] | None:
    if not last_dir.exists():
        return None
    saved = read_trainer_info(last_dir)
    mine, theirs = config.to_json(), saved["config"]
    names = config.differing_fields(theirs)
    if names:
        lines = [f"{name}: {theirs.get(name, 'unset')} there, {mine[name]} here" for name in names]
        raise InputError(
            f"{last_dir.parent} holds a run with other settings",
            why="\n".join(lines),
            fix="choose another --output, or repeat the first command to resume that run",
        )
    return saved


def check_same_data(saved: dict[str, Any], fingerprint: str, last_dir: Path) -> None:
    """Refuse to resume with other images or captions.

    Raises:
        InputError: The data's fingerprint is not that of the checkpoint.
    """
    if saved["data"] != fingerprint:
        raise InputError(
            f"{last_dir.parent} was trained on other data",
            why="the images or captions have changed since its checkpoint",
            fix="choose another --output",
        )
