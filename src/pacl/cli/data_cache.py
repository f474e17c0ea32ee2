"""pacl data cache: the frozen tokens of a training set, computed beforehand."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from pacl.cli.console import DONE, SOME_FAILED, progress, result, say, say_next
from pacl.cli.options import parse_shard
from pacl.training.config import TrainConfig

if TYPE_CHECKING:
    from pacl.training.precompute import CacheReport


@dataclass(frozen=True)
class CacheData:
    """Encode the images of a training set once, for `pacl train --cache-dir`; resumes."""

    data: Positional[Path]
    """Captioned images in any layout that `pacl train` reads."""

    output: Path
    """Folder for the tokens. One that holds tokens of other images or settings is refused."""

    model: str = TrainConfig.model
    """CLIP whose vision tower encodes; this and the options below are those of `pacl train`."""

    vision: str | None = None
    """Vision tower, with `--text` in place of `--model`."""

    text: str | None = None
    """Text tower."""

    image_key: str | None = None
    """Column of the image paths; none: detected by name."""

    caption_key: str | None = None
    """Column of the captions; none: detected by name."""

    recaptions: Path | None = None
    """Table of captions for tars: it decides whether samples without a text are used."""

    token_kind: str = TrainConfig.token_kind
    """Last block of the frozen encoder."""

    token_layer: int = TrainConfig.token_layer
    """Block whose patch tokens are kept; with `pacl train --paper`: -1."""

    image_size: int | None = None
    """Side in pixels of the squares that images are squeezed into; none: the checkpoint's own
    resizing and centre crop."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What the encoder computes in; auto: bf16 where the GPU or CPU supports it in hardware."""

    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, cuda:1 ..."""

    workers: int = TrainConfig.workers
    """Threads that decode images."""

    shard: str = "0/1"
    """This process does part I of N: 0/4, 1/4, ... in four processes or on four machines that
    share the folder. Under torchrun the parts are given out by themselves."""

    verify: bool = False
    """Read the tokens that are there as well, and encode again what is damaged."""

    def config(self) -> TrainConfig:
        """Return the settings of a run that would read these tokens."""
        shared = {each.name for each in fields(TrainConfig)} & vars(self).keys()
        settings = {name: getattr(self, name) for name in shared}
        return TrainConfig(**settings, cache_dir=self.output).resolve()


def cache_data(options: CacheData) -> int:
    """Encode, alone or together with other processes; 1 if an image cannot be read."""
    config, part = options.config(), parse_shard(options.shard)
    from pacl.runtime.distributed import joined
    from pacl.training.precompute import cache_tokens

    with joined() as is_first:
        if is_first:
            say(f"reading {options.data} and preparing {options.vision or options.model}")
        with progress("encode") as show:
            done = cache_tokens(
                config,
                options.output,
                part=part,
                is_verified=options.verify,
                on_encoded=(lambda _, n_done, n: show(n_done, n, "images")) if is_first else None,
            )
        if is_first:
            _report(options, done)
    return SOME_FAILED if done.n_unreadable else DONE


def _report(options: CacheData, done: CacheReport) -> None:
    say(done.summary)
    if done.n_unreadable:
        say(f"{done.n_unreadable:,} images cannot be read, such as: {done.why_unreadable}")
    result(f"{options.output}: tokens of {done.n_images:,} images, {done.size / 2**30:,.2f} GiB")
    if done.n_complete < done.n_shards:
        say(f"{done.n_complete:,} of {done.n_shards:,} parts are there; others do the rest")
        return
    say_next(
        "train",
        data=options.data,
        cache_dir=options.output,
        model=None if options.vision else options.model,
        vision=options.vision,
        text=options.text,
        image_key=options.image_key,
        caption_key=options.caption_key,
        recaptions=options.recaptions,
        token_layer=options.token_layer,
        image_size=options.image_size,
        token_kind=None if options.token_kind == TrainConfig.token_kind else options.token_kind,
        precision=None if options.precision == "auto" else options.precision,
        output="runs/mine",
    )
