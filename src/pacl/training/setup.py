"""Set up a run from its config: read the data, build the model, choose the objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from pacl.data.opening import open_pairs
from pacl.data.pairs import PairSource
from pacl.data.recaptions import Recaptions
from pacl.data.stream import HeldStream, MixedStream, PairStream
from pacl.data.tars import TarPairs
from pacl.errors import InputError
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.names import find_source
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers import TextTower, VisionTower
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.load import load_pair
from pacl.runtime import distributed
from pacl.training.batches import torch_stream
from pacl.training.config import TrainConfig
from pacl.training.feed import Feed
from pacl.training.objectives import ClipObjective, Objective, PaclObjective
from pacl.training.run_data import (
    OnEncoded,
    check_same_everywhere,
    check_shares,
    hold_data,
    stream_data,
)
from pacl.training.texts import EncodeTexts


@dataclass(frozen=True)
class Setup:
    """The parts of a run that stay the same in all steps."""

    objective: Objective
    feed: Feed
    batch_size: int
    n_steps: int
    device: torch.device
    autocast: Callable[[], AbstractContextManager]
    data_fingerprint: str
    notes: Callable[[], tuple[str, ...]]
    pairs: PairStream
    """The data, by row."""
    words: tuple[str, ...]
    """Nouns of the captions, those of most images first."""
    towers: tuple[tuple[str, str, str], ...]
    """Role, name and fingerprint of each tower, before it is trained."""


def prepare(config: TrainConfig, *, on_encoded: OnEncoded | None) -> Setup:
    """Read the pairs, build the model, its image source and the objective.

    Args:
        config: Resolved settings.
        on_encoded: Called while images are checked or encoded, before the first step.

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
    device = find_device(config.device)
    config = choose_precision(config, device)
    is_bf16 = config.precision == "bf16"
    # No cache of rounded weights: a chunk that is embedded again must do just what it did before.
    autocast = partial(
        torch.autocast, device.type, torch.bfloat16, enabled=is_bf16, cache_enabled=False
    )
    pairs = open_data(config)
    check_shares(min(config.batch_size, len(pairs)))
    vision, text = load_towers(config, device)
    check_same_everywhere(f"data {pairs.fingerprint}, CLIP {vision.fingerprint} {text.fingerprint}")
    config = choose_tokens(config, vision)
    with autocast():
        if isinstance(pairs, TarPairs | MixedStream):
            data = stream_data(config, pairs, vision, text, on_encoded)
        else:
            data = hold_data(config, pairs, vision, text, on_encoded)
        objective = _build_objective(config, vision, text, data.encode_texts, data.feed.batch_size)
    if isinstance(objective, PaclObjective):
        objective.model.words = data.words
    return Setup(
        objective=objective,
        feed=data.feed,
        batch_size=data.feed.batch_size,
        n_steps=data.n_steps,
        device=device,
        autocast=autocast,
        data_fingerprint=data.fingerprint,
        notes=data.notes,
        pairs=pairs if isinstance(pairs, TarPairs | MixedStream) else HeldStream(pairs),
        words=data.words,
        towers=tuple(_name_towers(vision, text)),
    )


def _name_towers(vision: VisionTower, text: TextTower) -> Iterator[tuple[str, str, str]]:
    if vision is text:
        yield "encoder", str(vision.source), vision.fingerprint
    else:
        yield "vision", str(vision.source), vision.fingerprint
        yield "text", str(text.source), text.fingerprint


def open_data(config: TrainConfig) -> PairSource | TarPairs | MixedStream:
    """Open the data; with several processes the first builds what indices are missing."""
    if distributed.rank() > 0:
        distributed.wait_for_all()
    mode = config.recaptions_mode
    pairs = open_pairs(
        config.data,
        image_key=config.image_key,
        caption_key=config.caption_key,
        recaptions=Recaptions(config.recaptions, mode) if config.recaptions else None,
    )
    if distributed.rank() == 0:
        distributed.wait_for_all()
    return pairs


def load_towers(config: TrainConfig, device: torch.device) -> tuple[VisionTower, TextTower]:
    """Load the frozen towers that a run builds on, often one CLIP."""
    if config.vision is not None and config.text is not None:
        return load_pair(config.vision, config.text, device=device)
    clip = _build_encoder(config).to(device)
    return clip, clip


def choose_tokens(config: TrainConfig, vision: VisionTower) -> TrainConfig:
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
    has_weights = not Path(source).is_dir() or any(Path(source).glob("*.safetensors*"))
    if config.objective == "pacl" or has_weights:
        encoder = HfClip.from_pretrained(source)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            encoder = HfClip.from_config(source)
    encoder.source = config.model  # the name the checkpoint will hold, not where it was found
    return encoder


def _build_objective(
    config: TrainConfig,
    vision: VisionTower,
    text: TextTower,
    encode_texts: EncodeTexts,
    batch_size: int,
) -> Objective:
    parts = config.trainable_parts()
    if config.objective == "clip":
        assert isinstance(vision, HfClip)
        vision.unfreeze(parts)
        vision.train()
        return ClipObjective(
            vision, encode_texts, config.seed, config.augment, config.keep_patches, batch_size
        )
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


def find_device(name: str) -> torch.device:
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


def choose_precision(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Return the settings with "auto" replaced by what suits the device."""
    if config.precision != "auto":
        return config
    return replace(config, precision="bf16" if has_bf16(device) else "fp32")


def has_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
