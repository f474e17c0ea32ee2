"""Patch tokens of a training set, computed beforehand for runs of the same settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pacl.errors import InputError
from pacl.runtime import distributed
from pacl.training.config import TrainConfig
from pacl.training.run_data import OnEncoded, token_encoder
from pacl.training.setup import (
    check_same_everywhere,
    choose_precision,
    choose_tokens,
    find_device,
    load_towers,
    open_data,
)
from pacl.training.token_cache import fill_token_store, open_token_store


@dataclass(frozen=True)
class CacheReport:
    """The state of a cache on disk."""

    summary: str
    """What was read as data."""
    n_images: int
    n_unreadable: int
    """Images that could not be read, in the shards that are complete."""
    why_unreadable: str
    """Why the first of them could not; empty where all could."""
    n_shards: int
    n_complete: int
    """Shards that are complete."""
    size: int
    """Bytes of those."""


def cache_tokens(
    config: TrainConfig,
    directory: Path,
    *,
    part: tuple[int, int] = (0, 1),
    is_verified: bool = False,
    on_encoded: OnEncoded | None = None,
) -> CacheReport:
    """Encode the images of a data set into a folder; resumes what is there.

    Args:
        config: Resolved settings of the run that will read the tokens.
        directory: The folder.
        part: The number of this part, from 0, and the number of parts; under a launcher such as
            torchrun, each of its processes does a part of its own.
        is_verified: Check the tokens that are there, too, and encode damaged ones again.
        on_encoded: Called with "encoded" and the numbers of images done and to do.

    Raises:
        InputError: The data or the model is bad, the folder holds a cache of other settings, or a
            part is asked for under a launcher.
        EnvironmentProblem: The disk is full; what was finished is kept.
    """
    if distributed.world_size() > 1:
        if part[1] > 1:
            raise InputError("the processes of a launcher share the work", fix="leave out --shard")
        part = (distributed.rank(), distributed.world_size())
    device = find_device(config.device)
    config = choose_precision(config, device)
    pairs = open_data(config)
    vision, _ = load_towers(config, device)
    check_same_everywhere(f"data {pairs.images_fingerprint}, tower {vision.fingerprint}")
    encode = token_encoder(choose_tokens(config, vision), vision)
    store = open_token_store(encode, pairs, directory)
    fill_token_store(
        store,
        encode,
        pairs,
        part=part,
        is_verified=is_verified,
        workers=config.workers,
        on_progress=on_encoded and (lambda done, n: on_encoded("encoded", done, n)),
    )
    distributed.wait_for_all()
    found = [store.find(number) for number in range(store.n_shards)]
    shards = [shard for shard in found if shard is not None]
    reasons = [why for shard in shards for why in shard.unreadable.values()]
    return CacheReport(
        summary=pairs.summary(),
        n_images=len(pairs),
        n_unreadable=len(reasons),
        why_unreadable=reasons[0] if reasons else "",
        n_shards=store.n_shards,
        n_complete=len(shards),
        size=sum(shard.size for shard in shards),
    )
