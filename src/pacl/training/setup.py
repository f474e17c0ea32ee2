"""Set up a run from its config: read the data, build the model, choose the objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import tee
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pacl.data.opening import open_pairs
from pacl.data.pairs import PairSource
from pacl.errors import InputError
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.names import find_source
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers import TextTower, VisionTower
from pacl.modeling.towers.hf import TEXTS_AT_ONCE, HfClip
from pacl.modeling.towers.load import load_pair
from pacl.runtime import distributed
from pacl.text.nouns import extract_nouns
from pacl.text.templates import TEMPLATES
from pacl.training.batches import (
    TextTable,
    count_steps_per_epoch,
    number_texts,
    sample_rows,
    texts_of_run,
    torch_stream,
)
from pacl.training.config import TrainConfig
from pacl.training.images import DecodedImages, StepImages
from pacl.training.objectives import (
    ClipObjective,
    Objective,
    PaclObjective,
    build_text_encoder,
    build_text_table,
)
from pacl.training.token_cache import build_token_cache

OnEncoded = Callable[[str, int, int], None]
"""Called with "images" or "texts", how many are encoded, and how many there are."""


@dataclass(frozen=True)
class Setup:
    """The parts of a run that stay the same in all steps."""

    objective: Objective
    table: TextTable
    images: StepImages
    batch_size: int
    seed: int
    n_steps: int
    device: torch.device
    autocast: Callable[[], AbstractContextManager]
    data_fingerprint: str
    notes: tuple[str, ...]

    @property
    def n_images(self) -> int:
        """Number of images that can be read."""
        return len(self.images.readable)

    def iter_steps(self, first_step: int) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Draw the rows of each step once, from `first_step` on, for both images and texts.

        Yields:
            The rows of the whole batch, counted over the readable images, and this process's
            share of the batch: decoded images or cached tokens.
        """
        share = distributed.own_share(self.batch_size)
        drawn, for_images = tee(
            sample_rows(self.n_images, self.batch_size, seed=self.seed, step=step)
            for step in range(first_step, self.n_steps)
        )
        shares = (self.images.readable[rows[share]] for rows in for_images)
        return zip(drawn, self.images.iter_batches(shares), strict=True)


def prepare(config: TrainConfig, *, on_encoded: OnEncoded | None) -> Setup:
    """Read the pairs, build the model, its image source and the objective.

    Args:
        config: Resolved settings.
        on_encoded: Called while frozen towers encode images and texts, before the first step.

    Raises:
        InputError: The data is bad, the model cannot be loaded, or there are more processes than
            GPUs here or images in a batch.
    """
    n_processes = distributed.world_size()
    if n_processes > 1 and config.objective == "clip":
        raise InputError(
            "the clip objective trains on one process",
            fix="pacl train without a launcher; --objective pacl takes any number",
        )
    device = _find_device(config.device)
    is_bf16 = config.precision == "bf16" or (config.precision == "auto" and has_bf16(device))
    # No cache of rounded weights: a chunk that is embedded again must do just what it did before.
    autocast = partial(
        torch.autocast, device.type, torch.bfloat16, enabled=is_bf16, cache_enabled=False
    )
    pairs = open_pairs(config.data, image_key=config.image_key, caption_key=config.caption_key)
    _check_shares(min(config.batch_size, len(pairs)))
    vision, text = _load_towers(config, device)
    _check_same_everywhere(
        f"data {pairs.fingerprint}, CLIP {vision.fingerprint} {text.fingerprint}"
    )
    config = _choose_tokens(config, vision)
    with autocast():
        images = _open_images(config, vision, pairs, on_encoded)
    readable = pairs.select(images.readable.tolist())
    if len(readable) < 2:
        raise InputError(
            "training contrasts images with each other and needs at least 2 images",
            why=pairs.summary(),
        )
    _check_same_everywhere(f"readable data {readable.fingerprint}")
    batch_size = min(config.batch_size, len(readable))
    _check_shares(batch_size)
    table = number_texts(
        readable.captions,
        templates=TEMPLATES[config.templates],
        extract_nouns=extract_nouns if config.noun_weight else None,
    )
    n_steps = config.steps or config.epochs * count_steps_per_epoch(len(readable), batch_size)
    used_texts = texts_of_run(table, batch_size=batch_size, seed=config.seed, n_steps=n_steps)
    with autocast():
        objective = _build_objective(
            config, vision, text, table.texts, used_texts, batch_size, on_encoded
        )
    if isinstance(objective, PaclObjective):
        objective.model.words = table.frequent_nouns()
    return Setup(
        objective=objective,
        table=table,
        images=images,
        batch_size=batch_size,
        seed=config.seed,
        n_steps=n_steps,
        device=device,
        autocast=autocast,
        data_fingerprint=readable.fingerprint,
        notes=(
            *_iter_notes(config, pairs, images, batch_size),
            *_cut_note(text, [table.texts[k] for k in used_texts]),
        ),
    )


def _check_shares(batch_size: int) -> None:
    n_processes = distributed.world_size()
    if batch_size < n_processes:
        raise InputError(
            f"{n_processes} processes share batches of {batch_size} images",
            why="each needs at least one",
            fix="fewer processes, or a larger --batch-size",
        )


def _check_same_everywhere(fingerprint: str) -> None:
    """Refuse to train if processes see different data or towers."""
    found = distributed.gather_values(fingerprint)
    if len(set(found)) > 1:
        raise InputError(
            "the processes do not see the same data and CLIP",
            why="\n".join(f"process {number}: {value}" for number, value in enumerate(found)),
            fix="give --data and --model that are the same on all machines",
        )


def _load_towers(config: TrainConfig, device: torch.device) -> tuple[VisionTower, TextTower]:
    if config.vision is not None and config.text is not None:
        return load_pair(config.vision, config.text, device=device)
    clip = _build_encoder(config).to(device)
    return clip, clip


def _choose_tokens(config: TrainConfig, vision: VisionTower) -> TrainConfig:
    """Return the settings with a kind and layer of tokens that this tower has.

    The defaults are a CLIP's; for a tower without them, its own first kind and last layer are
    used.
    """
    kind, layer = config.token_kind, config.token_layer
    if TrainConfig.token_kind not in vision.token_kinds:
        kind = vision.token_kinds[0] if kind == TrainConfig.token_kind else kind
        layer = -1 if layer == TrainConfig.token_layer else layer
    if kind not in vision.token_kinds:
        raise InputError(
            f"token kind {kind}: {vision.source} has none of that kind",
            fix=f"--token-kind {', '.join(vision.token_kinds)}",
        )
    if not -vision.n_layers <= layer <= -1:
        raise InputError(
            f"token layer {layer}: this vision encoder has {vision.n_layers} blocks",
            fix=f"--token-layer from -1 (the last) to -{vision.n_layers} (the first)",
        )
    return replace(config, token_kind=kind, token_layer=layer)


def _build_encoder(config: TrainConfig) -> HfClip:
    """Load the CLIP; for the clip objective, start from random weights where it has none."""
    source = find_source(config.model)
    has_weights = not Path(source).is_dir() or any(Path(source).glob("model*.safetensors*"))
    if config.objective == "pacl" or has_weights:
        encoder = HfClip.from_pretrained(source)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            encoder = HfClip.from_config(source)
    encoder.source = config.model  # the name the checkpoint will hold, not where it was found
    return encoder


def _open_images(
    config: TrainConfig, encoder: VisionTower, pairs: PairSource, on_encoded: OnEncoded | None
) -> StepImages:
    size_px = None if config.image_size is None else (config.image_size, config.image_size)
    if config.objective == "pacl" and config.cache != "none":
        return build_token_cache(
            encoder,
            pairs,
            directory=config.output / "tokens" if config.cache == "disk" else None,
            device=encoder.device,
            size_px=size_px,
            kind=config.token_kind,
            layer=config.token_layer,
            workers=config.workers,
            on_progress=on_encoded and partial(on_encoded, "images"),
        )
    return DecodedImages(
        pairs,
        resize=partial(encoder.resize, size_px=size_px),
        workers=config.workers,
        memory_gb=config.cache_images_gb,
    )


def _build_objective(
    config: TrainConfig,
    vision: VisionTower,
    text: TextTower,
    texts: Sequence[str],
    used_texts: np.ndarray,
    batch_size: int,
    on_encoded: OnEncoded | None,
) -> Objective:
    on_texts = on_encoded and partial(on_encoded, "texts")
    parts = config.trainable_parts()
    encode_texts = (
        build_text_encoder(text, texts)
        if "text" in parts
        else build_text_table(text, texts, used_texts, on_texts=on_texts)
    )
    if config.objective == "clip":
        assert isinstance(vision, HfClip)
        vision.unfreeze(parts)
        vision.train()
        return ClipObjective(vision, encode_texts, config.seed, config.augment, config.keep_patches)
    joint_width = vision.width if config.head == "text" else text.text_width
    of_texts = None
    if config.head != "vision":
        of_texts = VisionEmbedder(text.text_width, joint_width)
        of_texts.init_random(generator=torch_stream(config.seed, "text embedder", 0))
    model = Pacl(
        vision=vision,
        text=text,
        embedder=None if config.head == "text" else _build_embedder(config, vision, joint_width),
        text_embedder=of_texts and of_texts.to(text.device),
        patch_temperature=config.patch_temperature,
        token_kind=config.token_kind,
        token_layer=config.token_layer,
        pooling=config.pooling,
        null_similarity=None if config.null_token == "none" else 0.0,
    )
    is_learned = config.null_token == "learn"
    return PaclObjective(
        model,
        encode_texts,
        config.seed,
        config.augment,
        batch_size,
        patches_per_image=config.patches_per_image,
        null_similarity=nn.Parameter(torch.zeros((), device=model.device)) if is_learned else None,
    )


def _build_embedder(config: TrainConfig, encoder: VisionTower, joint_width: int) -> VisionEmbedder:
    embedder = VisionEmbedder(encoder.width, joint_width)
    generator = torch_stream(config.seed, "embedder", 0)
    if config.init == "random":
        embedder.init_random(generator=generator)
    else:
        assert isinstance(encoder, HfClip)
        unit_vectors = torch.eye(encoder.width, device=encoder.device)[None]
        with torch.autocast(encoder.device.type, enabled=False):  # the very weights, not rounded
            projection = encoder.project_patches(unit_vectors)[0].T
        embedder.init_clip(projection.cpu(), generator=generator)
    return embedder.to(encoder.device)


def _iter_notes(
    config: TrainConfig, pairs: PairSource, images: StepImages, batch_size: int
) -> Iterator[str]:
    yield pairs.summary()
    if images.unreadable:
        first = next(iter(images.unreadable.values()))
        yield f"left out {len(images.unreadable):,} unreadable images, such as: {first}"
    if batch_size < config.batch_size:
        yield f"batch size {config.batch_size:,} capped to the {batch_size:,} images there are"


def _cut_note(encoder: TextTower, texts: Sequence[str]) -> Iterator[str]:
    starts = range(0, len(texts), TEXTS_AT_ONCE)
    n_cut = sum(encoder.tokenize(texts[start : start + TEXTS_AT_ONCE])[2] for start in starts)
    if n_cut:
        yield f"cut {n_cut:,} captions to the encoder's {encoder.context_length} tokens"


def _find_device(name: str) -> torch.device:
    """Return the device of a name; with "cuda" each process of a machine gets its own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(
            f"device: there is no {name!r}", fix="--device cpu, cuda or auto"
        ) from error
    if device.type != "cuda" or distributed.world_size() == 1:
        return device
    number, n_gpus = distributed.own_gpu(), torch.cuda.device_count()
    if device.index is not None or n_gpus == 1:  # some launchers show each process its own only
        number = device.index or 0
    if number >= n_gpus:
        raise InputError(
            f"process {number} finds no GPU of its own: {n_gpus} here",
            fix=f"torchrun --nproc-per-node {max(1, n_gpus)}, or --device cpu",
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def has_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
