"""Training on image-caption pairs: one loop for both objectives, resumable to the bit on a CPU.

Every random choice is a function of (seed, step), so a checkpoint is weights, optimiser moments
and the step number. The same command resumes from the last checkpoint.

Under a launcher such as torchrun the processes share every batch: each encodes some of its images,
and the step equals that of one process with all of them (see distributed.py). The first writes.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pacl.errors import PaclError
from pacl.modeling.card import describe_numbers
from pacl.modeling.compatibility import NotFiniteError
from pacl.modeling.loss import contrastive_loss_across_ranks, sigmoid_loss
from pacl.runtime import distributed
from pacl.runtime.interrupts import interrupts_noted
from pacl.training.accumulate import score_batch
from pacl.training.batches import find_false_negatives, sample_texts
from pacl.training.chance import ChanceWatch
from pacl.training.checkpoint import Checkpoints, find_checkpoint
from pacl.training.checkups import Checkups
from pacl.training.config import TrainConfig
from pacl.training.feed import Batch
from pacl.training.objectives import Objective
from pacl.training.record import METRICS_FILE, Record
from pacl.training.setup import OnEncoded, prepare

MAX_LOGIT_SCALE = 100.0
SIGMOID_SCALE = 20.0
"""Where the logit scale starts with the sigmoid loss (SAIL, arXiv 2412.04616)."""


@dataclass(frozen=True)
class Progress:
    """The state of a run after a step; passed to the ``progress`` callback."""

    step: int
    """Steps done."""
    n_steps: int
    """Steps in all."""
    loss: float
    """Loss of this step."""
    loss_captions: float
    """Its caption part, per text; at chance the logarithm of the batch size."""
    loss_nouns: float
    """Its noun part, per text and before its weight; nan without nouns."""
    batch_size: int
    """Images that a caption is told apart from; their inverse is the accuracy at chance."""
    accuracy: float
    """In-batch retrieval top-1 of this step, mean of both directions, in [0, 1]."""
    images_per_s: float
    """Speed over the last 20 steps."""
    eta_s: float
    """Seconds left at that speed."""
    news: tuple[str, ...] = ()
    """What there is to say since the step before: sheets of probe images, held-out scores, whether
    the loss falls below that of guessing."""

    def describe(self) -> str:
        """Return the figures in a line: loss beside chance, accuracy, speed."""
        nouns = "" if math.isnan(self.loss_nouns) else f"nouns {self.loss_nouns:.2f}  "
        return (
            f"loss per caption {self.loss_captions:.2f} (chance {math.log(self.batch_size):.2f})  "
            f"{nouns}accuracy {self.accuracy:.0%}  {self.images_per_s:,.0f} images/s"
        )


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a run."""

    checkpoint_dir: Path
    """The newest checkpoint, a model directory."""
    metrics_path: Path
    """Path of metrics.jsonl."""
    loss: float
    """Loss of the last step; nan where no step was left to do."""
    steps: int
    """Steps done, those of earlier runs included."""
    n_steps: int
    """Steps in all."""
    seconds: float
    """Wall time of this call."""
    is_stopped: bool
    """Whether an interrupt ended the run early; the same command resumes it."""
    is_terminated: bool
    """Whether that interrupt was SIGTERM alone, as schedulers send it, not the user's SIGINT."""
    accuracy: float
    """In-batch accuracy of the last step, see `Progress`; nan where no step was left to do."""
    batch_size: int
    """Images of a step."""
    notes: tuple[str, ...]
    """Remarks for the user: skipped rows, a capped batch, ..."""
    meaning: tuple[str, ...] = ()
    """A sentence on each of the last figures, with its value at chance."""
    best: str | None = None
    """Which checkpoint scored best on held-out data, in a sentence."""


@distributed.lost_processes_named()
def train(
    config: TrainConfig,
    *,
    progress: Callable[[Progress], None] | None = None,
    on_encoded: OnEncoded | None = None,
) -> TrainResult:
    """Train as the config says, or resume the run that is in its output directory.

    Args:
        config: See `TrainConfig`. The batch size is that of all processes together.
        progress: Called after every step.
        on_encoded: Called while images are checked or encoded, before the first step.

    Raises:
        InputError: Bad data or settings, an output directory that holds a run with other
            settings, or one that not all processes can see.
        EnvironmentProblem: The disk is full; the last checkpoint is kept.
        PaclError: The loss or a gradient is NaN or infinite, or another process has ended; the last
            checkpoint is kept.
    """
    started_s = time.perf_counter()
    distributed.join()
    config = config.resolve()
    last_dir = config.output / "last"
    saved = find_checkpoint(last_dir, config)
    if saved is not None and saved["step"] == saved["n_steps"]:
        return _finished_before(saved, config.output)

    # What stays the same in all steps.
    setup = prepare(config, on_encoded=on_encoded)
    objective, batch_size = setup.objective, setup.batch_size
    share = setup.feed.share
    numbers = torch.arange(batch_size, device=setup.device)
    n_steps, steps_per_epoch = setup.n_steps, setup.feed.steps_per_epoch
    log_scale, bias = _build_scale(config, objective, setup.device)
    parameters = _name_trained(config, objective, log_scale, bias)
    optimiser = _build_optimiser(parameters, config)

    # Resume where an earlier run stopped, in all processes alike.
    checkpoints = Checkpoints(config, setup, log_scale, parameters, optimiser)
    first_step = step = checkpoints.resume(saved)
    record = Record(config, first_step=first_step, n_steps=n_steps, batch_size=batch_size)
    checkups = Checkups(config, setup, checkpoints, record)
    watch = ChanceWatch(n_steps, batch_size)
    news = checkups.look(0) if step == 0 else [f"resumed after step {step:,} of {n_steps:,}"]
    signals: set[int] = set()
    record.start_clock()
    with interrupts_noted() as is_interrupted:
        for batch in setup.feed.iter_batches(first_step, n_steps):
            if distributed.is_any(bool(is_interrupted())):
                signals = set(distributed.gather_values(is_interrupted())) - {0}
                break
            record.add_replaced(batch.replaced, step=step + 1)
            # The batch: images, a caption of each, and the nouns of those captions. Of several
            # processes, each scores its share of the images with all texts.
            rows, table = batch.rows, batch.table
            texts = sample_texts(table, rows, seed=config.seed, step=step)

            # The loss.
            named_if_wrong = partial(_not_finite_named, step + 1, batch, checkpoints, record)
            with named_if_wrong():
                scores = score_batch(
                    objective,
                    batch.images,
                    table.texts,
                    texts.ids,
                    step=step,
                    share=share,
                    at_once=config.images_at_once,
                    autocast=setup.autocast,
                )
            of_captions, of_nouns = scores.compatibility.tensor_split([batch_size], dim=1)
            caption_ids = texts.ids[:batch_size]
            left_out = _find_left_out(config, batch, caption_ids, share=share, device=setup.device)
            loss_of = _sigmoid(bias) if config.loss == "sigmoid" else contrastive_loss_across_ranks
            own = numbers[share, None] == numbers
            loss_captions = loss_of(of_captions, log_scale.exp(), positives=own, left_out=left_out)
            named = texts.positives[share].to(setup.device)
            loss_nouns = loss_of(of_nouns, log_scale.exp(), positives=named)
            loss = loss_captions + noun_weight(step, n_steps, config) * loss_nouns

            # The step.
            lr = _set_learning_rate(optimiser, step, n_steps, config)
            optimiser.zero_grad()
            loss.backward()
            scores.pass_on(parameters.values())
            with named_if_wrong():
                _check_finite(loss, optimiser)
            optimiser.step()
            with torch.no_grad():
                log_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
            step += 1

            # The record.
            images_per_s, eta_s = record.time_step(step)
            to_text, to_image = retrieval_accuracy(of_captions, caption_ids, share=share)
            line = {
                "step": step,
                "epoch": step / steps_per_epoch,
                "loss": loss.item(),
                "loss_captions": loss_captions.item(),
                "loss_nouns": loss_nouns.item(),
                "accuracy_image_to_text": to_text,
                "accuracy_text_to_image": to_image,
                "lr": lr,
                "logit_scale": log_scale.exp().item(),
                "images_per_s": images_per_s,
                "eta_s": eta_s,
            }
            record.add_metrics(line, has_nouns=config.noun_weight > 0)
            news += checkups.look(step)
            if step % config.checkpoint_every == 0:
                checkpoints.save(step, record.numbers)
            if progress is not None:
                now = record.numbers
                news += watch.add(step, loss=now["loss_captions"], accuracy=now["accuracy"])
                progress(_progress(record.numbers, n_steps, line, news))
            news = []
        if step > first_step and step % config.checkpoint_every != 0:
            checkpoints.save(step, record.numbers)
    return TrainResult(
        checkpoint_dir=last_dir,
        metrics_path=record.metrics_path,
        loss=record.numbers.get("loss", math.nan),
        accuracy=record.numbers.get("accuracy", math.nan),
        meaning=tuple(describe_numbers(record.numbers)),
        best=checkups.describe_best(),
        steps=step,
        n_steps=n_steps,
        seconds=time.perf_counter() - started_s,
        is_stopped=step < n_steps,
        is_terminated=signals == {signal.SIGTERM},
        batch_size=batch_size,
        notes=(*setup.notes(), *record.close()),
    )


def _progress(
    numbers: Mapping[str, Any], n_steps: int, line: Mapping[str, Any], news: Sequence[str]
) -> Progress:
    return Progress(
        step=line["step"],
        n_steps=n_steps,
        loss=numbers["loss"],
        loss_captions=numbers["loss_captions"],
        loss_nouns=math.nan if numbers["loss_nouns"] is None else numbers["loss_nouns"],
        batch_size=numbers["batch_size"],
        accuracy=numbers["accuracy"],
        images_per_s=line["images_per_s"],
        eta_s=line["eta_s"],
        news=tuple(news),
    )


def _finished_before(saved: dict[str, Any], output: Path) -> TrainResult:
    return TrainResult(
        checkpoint_dir=output / "last",
        metrics_path=output / METRICS_FILE,
        loss=math.nan,
        steps=saved["step"],
        n_steps=saved["n_steps"],
        seconds=0.0,
        is_stopped=False,
        is_terminated=False,
        accuracy=math.nan,
        batch_size=0,
        notes=("this run was finished before; nothing was left to do",),
    )


def _build_scale(
    config: TrainConfig, objective: Objective, device: torch.device
) -> tuple[nn.Parameter, nn.Parameter]:
    """Build the logarithm of the logit scale, and the bias of the sigmoid loss, in float64.

    Their gradients are sums over all pairs: in float32 their order would be seen.
    """
    usual = SIGMOID_SCALE if config.loss == "sigmoid" else objective.logit_scale
    scale = torch.tensor(config.logit_scale_init or usual, dtype=torch.float64, device=device)
    bias = torch.tensor(config.logit_bias_init, dtype=torch.float64, device=device)
    return nn.Parameter(scale.log()), nn.Parameter(bias)


def _name_trained(
    config: TrainConfig, objective: Objective, log_scale: nn.Parameter, bias: nn.Parameter
) -> dict[str, nn.Parameter]:
    """Return all that is trained, by name."""
    parameters = dict(objective.parameters)
    if config.logit_scale == "learn":
        parameters["log_logit_scale"] = log_scale
    if config.loss == "sigmoid":
        parameters["logit_bias"] = bias
    return parameters


def _find_left_out(
    config: TrainConfig,
    batch: Batch,
    caption_ids: np.ndarray,
    *,
    share: slice,
    device: torch.device,
) -> Tensor | None:
    """Find which captions are not to count as negatives of this process's images."""
    if config.false_negatives == "keep":
        return None
    by_nouns = config.false_negatives == "nouns"
    left_out = find_false_negatives(batch.table, batch.rows, caption_ids, by_nouns=by_nouns)
    return left_out[share].to(device)


def _sigmoid(bias: Tensor) -> Callable[..., Tensor]:
    """Return the sigmoid loss with the signature of the contrastive one."""

    def loss(compatibility: Tensor, logit_scale: Tensor, **pairs: Tensor | None) -> Tensor:
        return sigmoid_loss(compatibility, logit_scale, bias, **pairs)  # type: ignore[arg-type]

    return loss


def noun_weight(step: int, n_steps: int, config: TrainConfig) -> float:
    """Return the weight of the noun loss: linear from first to last value, or constant."""
    if config.noun_weight_end is None:
        return config.noun_weight
    done = step / max(1, n_steps - 1)
    return config.noun_weight + (config.noun_weight_end - config.noun_weight) * done


def learning_rate_factor(step: int, n_steps: int, warmup: int) -> float:
    """Return the factor at a step: linear warm-up, then half a cosine to 0 (paper, A.2.1)."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


def _set_learning_rate(
    optimiser: torch.optim.Optimizer, step: int, n_steps: int, config: TrainConfig
) -> float:
    lr = config.lr * learning_rate_factor(step, n_steps, config.warmup)
    for group in optimiser.param_groups:
        group["lr"] = lr
    return lr


def retrieval_accuracy(
    compatibility: Float[Tensor, "b B"], caption_ids: np.ndarray, *, share: slice = slice(None)
) -> tuple[float, float]:
    """Measure in-batch top-1 from image to caption and from caption to image, in [0, 1].

    Args:
        compatibility: Row i of the whole batch and column i are a pair.
        caption_ids: Number of each column's caption; an equal caption of another image
            counts as right.
        share: The rows that this process holds.
    """
    ids = torch.from_numpy(caption_ids).to(compatibility.device)
    to_text = ids[compatibility.argmax(dim=1)] == ids[share]
    best, row = compatibility.max(dim=0)
    winner = distributed.stack_ranks(best).argmax(dim=0, keepdim=True)
    found = distributed.stack_ranks(ids[share][row]).gather(0, winner)[0]
    n_right = distributed.sum_over_ranks(to_text.sum()).item()
    return n_right / len(ids), (found == ids).float().mean().item()


def _build_optimiser(parameters: dict[str, nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """Build AdamW with weight decay on matrices only, as CLIP does."""
    matrices = [p for p in parameters.values() if p.ndim >= 2]
    others = [p for p in parameters.values() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.wd},
        {"params": others, "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)


def _check_finite(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    """Stop before a NaN or infinite loss or gradient reaches the weights."""
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    for name, value in (("loss", loss), ("gradient norm", norm)):
        if not torch.isfinite(value):
            raise NotFiniteError(f"the {name} is {value.item()}")


@contextmanager
def _not_finite_named(
    step: int, batch: Batch, checkpoints: Checkpoints, record: Record
) -> Iterator[None]:
    """Save the last good state and name step and batch where a value is NaN or infinite."""
    try:
        yield
    except NotFiniteError as error:
        checkpoints.save_if_sound(step - 1, record.numbers)
        names = batch.names()
        shown = ", ".join(names[:4]) + (f" ... {len(names):,} in all" if len(names) > 4 else "")
        if checkpoints.last_dir.exists():
            kept = f"{checkpoints.last_dir} keeps the last checkpoint, from before that step"
            fix = "try a lower --lr, some --warmup or --precision fp32"
        else:
            kept = "there is no checkpoint yet"
            fix = "try --precision fp32 or a lower --lr; at step 1, --model may be damaged"
        why = f"{kept}\nthe batch: {shown}"
        raise PaclError(f"{error} at step {step}", why=why, fix=fix) from error
