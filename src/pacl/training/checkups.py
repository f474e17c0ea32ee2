"""Looking at the model as a run goes on: probe images, held-out scores, the best checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from pacl.modeling.compatibility import NotFiniteError
from pacl.runtime import distributed
from pacl.training.checkpoint import Checkpoints
from pacl.training.config import TrainConfig
from pacl.training.held_out import HeldOut, open_held_out
from pacl.training.probes import Probe, build_probe
from pacl.training.record import Record
from pacl.training.setup import Setup

N_LOOKS = 10
"""Times that a run is looked at, unless the config says how often."""


class Checkups:
    """Looks at the model every some steps; the first process does, the others wait at their step.

    Nothing that is trained changes by it. Which checkpoint is the best follows from the lines of
    held_out.jsonl up to the step, so a run that is resumed keeps the same one.

    Args:
        config: Says what to look at, and how often.
        setup: The run's data and towers.
        checkpoints: Keeps the best model.
        record: Keeps the scores.

    Raises:
        InputError: What the config names is not there or cannot be read.
    """

    def __init__(
        self, config: TrainConfig, setup: Setup, checkpoints: Checkpoints, record: Record
    ) -> None:
        self._checkpoints, self._record = checkpoints, record
        self._n_steps = setup.n_steps
        self._directory = config.output / "probe"
        usual = max(1, setup.n_steps // N_LOOKS)
        self._val_every = config.val_every or usual
        self._probe_every = usual if config.probe_every is None else config.probe_every
        self._is_shown = False
        self._held_out: HeldOut | None = None
        self._probe: Probe | None = None
        if distributed.rank() == 0:
            self._held_out = open_held_out(config, setup)
            self._probe = build_probe(config, setup) if self._probe_every else None

    def look(self, step: int) -> list[str]:
        """Look at the model after a step, if it is time to.

        Args:
            step: Steps done; 0 before the first.

        Returns:
            What there is to see, in sentences.

        Raises:
            InputError: A held-out image cannot be read.
            EnvironmentProblem: The disk is full.
        """
        is_last = step == self._n_steps
        tasks = []
        if self._probe is not None and (is_last or step % self._probe_every == 0):
            tasks.append(self._draw(self._probe, step))
        if self._held_out is not None and (is_last or step % self._val_every == 0):
            tasks.append(self._score(self._held_out, step))
        if not tasks:
            return []
        model = self._checkpoints.as_model().eval()
        try:
            return [f"step {step:,}: {sentence}" for task in tasks for sentence in task]
        except NotFiniteError:
            return []  # the step before or after stops at it and names the batch
        finally:
            model.train()  # frozen towers stay as they are

    def describe_best(self) -> str | None:
        """Say which checkpoint was the best; None where none was scored."""
        best, place = self._find_best(), self._checkpoints.best_dir
        if best is None:
            if self._held_out is None and place.is_dir() and distributed.rank() == 0:
                return f"{place} is of earlier steps with --val, and comes before last/"
            return None
        return f"best at step {best['step']:,}, in {place}: {best['sentence']}"

    def _draw(self, probe: Probe, step: int) -> Iterator[str]:
        path = self._directory / f"step-{step:06d}.png"
        probe.draw(self._checkpoints.as_model(), path)
        self._record.add_sheet(step, path)
        if not self._is_shown:
            self._is_shown = True
            yield f"segmented probe images, every {self._probe_every:,} steps from now: {path}"

    def _score(self, held_out: HeldOut, step: int) -> Iterator[str]:
        found = held_out.score(self._checkpoints.as_model())
        best = self._find_best()
        is_best = best is None or found.score > best["score"]
        if is_best:
            numbers = self._record.numbers | {"held_out": found.sentence}
            self._checkpoints.save_best(step, numbers)
        self._record.add_held_out(
            {
                "step": step,
                "data": held_out.fingerprint,
                "score": found.score,
                "figures": found.figures,
                "sentence": found.sentence,
            }
        )
        yield found.sentence + ("; the best so far" if is_best else "")

    def _find_best(self) -> dict | None:
        """Return the first of the lines with the highest score on these data."""
        if self._held_out is None:
            return None
        lines = [
            line for line in self._record.held_out if line["data"] == self._held_out.fingerprint
        ]
        return max(lines, key=lambda line: line["score"], default=None)
