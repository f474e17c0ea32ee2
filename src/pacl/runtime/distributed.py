"""The contrastive loss across processes, exactly: as if one process held the whole batch.

Each rank scores its own images against all texts; patches never travel. Row by row the loss is
local. Column by column it needs the log-sum-exp over the images of all ranks: one collective of a
number per text and rank. What every rank then computes is the gradient for its own rows alone, so
gradients of shared parameters are to be summed over the ranks (``sum_gradients``), not averaged.

Rows of a batch, or of anything else that is divided, go to the ranks in order (``own_share``).
Without an initialised process group there is one rank, and nothing is sent.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from pacl.errors import PaclError

Value = TypeVar("Value")

LONGEST_WAIT = timedelta(days=1)
"""For the others: rank 0 may encode a large data set before the first step."""


def join() -> None:
    """Join the processes that a launcher such as torchrun started; done once, it does nothing.

    Nor does it where there is no launcher, or the caller has set up a process group, which then has
    to serve tensors on a CPU as well. Those travel by gloo here, and those on a GPU by NCCL.
    """
    if _is_grouped() or not is_launched():
        return
    has_nccl = torch.cuda.is_available() and distributed.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
    distributed.init_process_group(backend, timeout=LONGEST_WAIT)


def leave() -> None:
    """End what ``join`` began, all processes together; they cannot join again."""
    if world_size() > 1:
        wait_for_all()
        distributed.destroy_process_group()


@contextmanager
def joined() -> Iterator[bool]:
    """Join the processes of a launcher for a block, in which all but the first log warnings only.

    Yields:
        Whether this is the first process: the one that speaks to the user.

    Raises:
        PaclError: Another process failed; its own message says why.
    """
    with lost_processes_named():
        join()
        is_first = rank() == 0
        if not is_first:
            logging.getLogger("pacl").setLevel(logging.WARNING)
        yield is_first
        leave()


def is_launched() -> bool:
    """Whether a launcher says that this process is one of several."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in names) and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def lost_processes_named() -> Iterator[None]:
    """Turn what a collective says when another process has ended into words for the user.

    Raises:
        PaclError: Another process failed; its own message says why.
    """
    try:
        yield
    except RuntimeError as error:
        is_of_collective = isinstance(error, distributed.DistError) or any(
            word in str(error) for word in ("gloo", "Gloo", "NCCL")
        )
        if world_size() == 1 or not is_of_collective:
            raise
        raise PaclError(
            f"process {rank()} lost the others",
            why="one of them has ended; its own message, before or after this one, says why",
            fix="fix that, then run the same command again: checkpoints are kept",
        ) from error


def own_gpu() -> int:
    """Number of the GPU that belongs to this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", rank()))


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if _is_grouped() else 0


def world_size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if _is_grouped() else 1


def own_share(n: int, *, together: int = 1) -> slice:
    """The rows of this rank where n rows are divided, as evenly as can be and in order.

    Args:
        n: Rows in all.
        together: Rows that stay on one rank, counted from the first; some ranks may then have none.
    """
    return _shares(n, together)[rank()]


def exchange_shares(rows: Float[Tensor, "n *size"], *, together: int = 1) -> None:
    """Complete rows of which every rank has filled its `own_share`, in place."""
    if world_size() == 1:
        return
    for source, share in enumerate(_shares(len(rows), together)):
        if share.start < share.stop:  # bytes: gloo does not know every type
            distributed.broadcast(rows[share].view(torch.uint8), src=source)


def take_from_first(parameters: Iterable[nn.Parameter]) -> None:
    """Give every rank the values of the first, in place."""
    if world_size() > 1:
        for parameter in parameters:
            distributed.broadcast(parameter.data, src=0)


def gather_values(value: Value) -> list[Value]:
    """A small Python value of every rank, in their order."""
    values = [value] * world_size()
    if world_size() > 1:
        distributed.all_gather_object(values, value)
    return values


def is_any(flag: bool) -> bool:
    """Whether the flag is set on any rank: the same answer on all."""
    return bool(sum_over_ranks(torch.tensor(int(flag))))


def wait_for_all() -> None:
    """Return once every rank has come here."""
    is_any(False)


def stack_ranks(value: Tensor) -> Tensor:
    """The values of all ranks, of one shape, in a new first dimension; not differentiable."""
    if world_size() == 1:
        return value[None]
    values = [torch.empty_like(value) for _ in range(world_size())]
    distributed.all_gather(values, value.contiguous())
    return torch.stack(values)


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of the values of all ranks; not differentiable."""
    if world_size() == 1:
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up every parameter's gradient over the ranks, in place, in one collective per type."""
    sum_in_place([p.grad for p in parameters if p.grad is not None])


def sum_in_place(gradients: Sequence[Tensor]) -> None:
    """Add up tensors over the ranks, in one collective per type."""
    if world_size() == 1:
        return
    for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
        group = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = sum_over_ranks(torch.cat([gradient.flatten() for gradient in group]))
        parts = flat.split([gradient.numel() for gradient in group])
        for gradient, part in zip(group, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _is_grouped() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _shares(n: int, together: int = 1) -> list[slice]:
    n_groups = -(-n // together)
    bounds = [n_groups * number // world_size() for number in range(world_size() + 1)]
    return [
        slice(min(start * together, n), min(stop * together, n)) for start, stop in pairwise(bounds)
    ]
