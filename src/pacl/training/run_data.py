"""A run's data: held in memory with numbered texts, or a stream of what is too large for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from pacl.data.pairs import PairSource
from pacl.data.stream import PairStream
from pacl.errors import InputError
from pacl.modeling.towers import TextTower, VisionTower
from pacl.modeling.towers.tokens import TEXTS_AT_ONCE
from pacl.runtime import distributed
from pacl.text.nouns import extract_nouns
from pacl.text.templates import TEMPLATES
from pacl.training.batches import TextTable, number_texts, order_texts
from pacl.training.config import TrainConfig
from pacl.training.feed import HeldFeed, StreamFeed
from pacl.training.growing_tokens import GrowingTokens
from pacl.training.images import DecodedImages, Resize, StepImages
from pacl.training.texts import (
    EncodeTexts,
    TextLookup,
    build_text_encoder,
    encode_as_needed,
)
from pacl.training.token_cache import TokenCache, TokenEncoder, build_token_cache

OnEncoded = Callable[[str, int, int], None]
"""Called with "encoded" or "checked", how many images are, and how many there are."""

_SAMPLE = 2_000
"""Images of a stream whose captions are read for the words that a checkpoint keeps."""


@dataclass(frozen=True)
class RunData:
    """What a run is fed with, and what is known of it before the first step."""

    feed: HeldFeed | StreamFeed
    encode_texts: EncodeTexts
    n_steps: int
    fingerprint: str
    words: tuple[str, ...]
    """Nouns of the captions, those of most images first."""
    notes: Callable[[], tuple[str, ...]]
    """Returns remarks for the user, those of the steps so far included."""


def hold_data(
    config: TrainConfig,
    pairs: PairSource,
    vision: VisionTower,
    text: TextTower,
    on_encoded: OnEncoded | None,
) -> RunData:
    """Number the texts of a table, and leave out the images that cannot be read.

    What is frozen is encoded once, in the step that first needs it or in a cache beforehand.

    Raises:
        InputError: Fewer than 2 images can be read, or there are more processes than images in a
            batch.
    """
    images = _open_images(config, vision, pairs, on_encoded)
    readable = pairs.select(images.readable.tolist())
    if len(readable) < 2:
        raise InputError(
            "training contrasts images with each other and needs at least 2 images",
            why=pairs.summary(),
        )
    check_same_everywhere(f"readable data {readable.fingerprint}")
    batch_size = min(config.batch_size, len(readable))
    share = _own_share(config, batch_size)
    table = _number_texts(config, readable.captions)
    feed = HeldFeed(images, table, batch_size, share, config.seed)
    is_trained = "text" in config.trainable_parts()
    order = order_texts(table, seed=config.seed)
    lookup = None if is_trained else TextLookup(text, table.texts, order)

    def notes() -> tuple[str, ...]:
        n_cut = _count_cut(text, table.texts) if lookup is None else lookup.n_cut
        about_texts = _cut_note(text, n_cut)
        return (*_iter_notes(config, pairs, images, batch_size), *about_texts)

    return RunData(
        feed=feed,
        encode_texts=lookup or build_text_encoder(text, table.texts),
        n_steps=config.steps or config.epochs * feed.steps_per_epoch,
        fingerprint=readable.fingerprint,
        words=table.frequent_nouns(),
        notes=notes,
    )


def stream_data(
    config: TrainConfig,
    stream: PairStream,
    vision: VisionTower,
    text: TextTower,
    on_encoded: OnEncoded | None,
) -> RunData:
    """Set up the reading of a stream; images are encoded in the steps unless a cache is asked for.

    Raises:
        InputError: There are fewer than 2 images, or more processes than images in a batch.
    """
    if len(stream) < 2:
        raise InputError(
            "training contrasts images with each other and needs at least 2 images",
            why=stream.summary(),
        )
    batch_size = min(config.batch_size, stream.order.n_per_epoch)
    share = _own_share(config, batch_size)
    number = partial(_number_texts, config)
    feed = StreamFeed(
        stream=stream,
        load=_load_of(config, vision, stream, on_encoded),
        number=number,
        batch_size=batch_size,
        share=share,
        seed=config.seed,
        workers=config.workers,
    )
    return RunData(
        feed=feed,
        encode_texts=encode_as_needed(text, is_trained="text" in config.trainable_parts()),
        n_steps=config.steps or config.epochs * feed.steps_per_epoch,
        fingerprint=stream.fingerprint,
        words=number(list(_sample_captions(stream, config.seed))).frequent_nouns(),
        notes=lambda: (stream.summary(), *_iter_capped(config, batch_size)),
    )


def _load_of(
    config: TrainConfig, vision: VisionTower, stream: PairStream, on_encoded: OnEncoded | None
) -> Callable[[int], Tensor]:
    if not config.is_cached(is_streamed=True):
        resize = _resize(config, vision)
        return lambda row: resize(stream.open_image(row))
    cache = _build_cache(config, vision, stream, on_encoded)

    def load(row: int) -> Tensor:
        if row in cache.unreadable:
            raise InputError(cache.unreadable[row])
        return cache[row]

    return load


def _number_texts(config: TrainConfig, captions: Sequence[Sequence[str]]) -> TextTable:
    return number_texts(
        captions,
        templates=TEMPLATES[config.templates],
        extract_nouns=extract_nouns if config.noun_weight else None,
    )


def _sample_captions(stream: PairStream, seed: int) -> Iterator[Sequence[str]]:
    for row in stream.order.rows(seed, 0, 0, min(_SAMPLE, stream.order.n_per_epoch)):
        try:
            yield stream.read_captions(int(row))
        except InputError:
            continue


def check_shares(batch_size: int) -> None:
    """Refuse to train with more processes than images in a batch."""
    n_processes = distributed.world_size()
    if batch_size < n_processes:
        raise InputError(
            f"{n_processes} processes share batches of {batch_size} images",
            why="each needs at least one",
            fix="fewer processes, or a larger --batch-size",
        )


def _own_share(config: TrainConfig, batch_size: int) -> slice:
    """Return the rows of a batch that this process scores, after `check_shares`.

    Images that are scored at once stay together where no process is then left without any.
    """
    check_shares(batch_size)
    at_once = config.images_at_once or 1
    is_enough = math.ceil(batch_size / at_once) >= distributed.world_size()
    return distributed.own_share(batch_size, together=at_once if is_enough else 1)


def check_same_everywhere(fingerprint: str) -> None:
    """Refuse to train if processes see different data or towers."""
    found = distributed.gather_values(fingerprint)
    if len(set(found)) > 1:
        raise InputError(
            "the processes do not see the same data and CLIP",
            why="\n".join(f"process {number}: {value}" for number, value in enumerate(found)),
            fix="give --data and --model that are the same on all machines",
        )


def _open_images(
    config: TrainConfig,
    encoder: VisionTower,
    pairs: PairSource,
    on_encoded: OnEncoded | None,
) -> StepImages:
    if config.is_cached(is_streamed=False):
        if config.cache == "disk" or distributed.world_size() > 1:
            return _build_cache(config, encoder, pairs, on_encoded)
        return GrowingTokens(
            token_encoder(config, encoder),
            pairs,
            workers=config.workers,
            on_progress=on_encoded and partial(on_encoded, "checked"),
        )
    return DecodedImages(
        pairs,
        resize=_resize(config, encoder),
        workers=config.workers,
        memory_gb=config.cache_images_gb,
    )


def _resize(config: TrainConfig, encoder: VisionTower) -> Resize:
    return partial(encoder.resize, size_px=_size_px(config))


def _size_px(config: TrainConfig) -> tuple[int, int] | None:
    return None if config.image_size is None else (config.image_size, config.image_size)


def _build_cache(
    config: TrainConfig,
    encoder: VisionTower,
    pairs: PairSource | PairStream,
    on_encoded: OnEncoded | None,
) -> TokenCache:
    directory = config.cache_dir or config.output / "tokens"
    return build_token_cache(
        token_encoder(config, encoder),
        pairs,
        directory=directory if config.cache == "disk" else None,
        workers=config.workers,
        on_progress=on_encoded and partial(on_encoded, "encoded"),
    )


def token_encoder(config: TrainConfig, encoder: VisionTower) -> TokenEncoder:
    """Build what turns a run's images into tokens.

    Args:
        config: Settings whose precision is "fp32" or "bf16", and whose kind and layer of tokens
            this tower has.
        encoder: The vision tower.
    """
    assert config.precision != "auto"
    return TokenEncoder(
        encoder,
        device=encoder.device,
        size_px=_size_px(config),
        kind=config.token_kind,
        layer=config.token_layer,
        precision=config.precision,
    )


def _iter_notes(
    config: TrainConfig, pairs: PairSource, images: StepImages, batch_size: int
) -> Iterator[str]:
    yield pairs.summary()
    if images.unreadable:
        first = next(iter(images.unreadable.values()))
        yield f"left out {len(images.unreadable):,} unreadable images, such as: {first}"
    yield from _iter_capped(config, batch_size)


def _iter_capped(config: TrainConfig, batch_size: int) -> Iterator[str]:
    if batch_size < config.batch_size:
        yield f"batch size {config.batch_size:,} capped to the {batch_size:,} images there are"


def _count_cut(encoder: TextTower, texts: Sequence[str]) -> int:
    starts = range(0, len(texts), TEXTS_AT_ONCE)
    return sum(encoder.tokenize(texts[start : start + TEXTS_AT_ONCE])[2] for start in starts)


def _cut_note(encoder: TextTower, n_cut: int) -> Iterator[str]:
    if n_cut:
        yield f"cut {n_cut:,} captions to the encoder's {encoder.context_length} tokens"
