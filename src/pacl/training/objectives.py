"""What differs between aligning patches (``pacl``) and training a CLIP (``clip``).

The training loop is one; it asks an ``Objective`` for the image side of some rows, the text side
of some text numbers, and the compatibility of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from pacl.modeling.compatibility import patch_compatibility
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers import FrozenClip
from pacl.modeling.towers.hf import HfClip
from pacl.runtime import distributed
from pacl.training.batches import torch_stream
from pacl.training.images import PictureSource, augment_pictures
from pacl.training.token_cache import TokenCache

TEXT_CHUNK = 256
"""Texts encoded at once where a whole table is."""

ACTIVATIONS_KEPT = 2**28
"""Numbers that the embedder of a step keeps for the backward pass, 1 GiB in float32."""

OnTexts = Callable[[int, int], None]
"""Called with the texts embedded and those to embed."""

RowsOfStep = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Objective:
    """The pieces of a run that depend on its objective, as plain functions."""

    parameters: dict[str, nn.Parameter]
    """What is trained, by name, without the logit scale."""
    logit_scale: float
    """The checkpoint's own."""
    encode_images: Callable[[int], Tensor]
    """Step → its images' frozen patch tokens (B, T, E), or pooled embeddings (B, D); of several
    processes each gets its share of the batch."""
    encode_texts: Callable[[np.ndarray], Tensor]
    """Text numbers (C,) → text embeddings (C, D)."""
    score: Callable[[Tensor, Tensor], Tensor]
    """(image side, text embeddings) → compatibility (B, C) in [-1, 1], float32; to be called under
    autocast, which embeds the tokens in bfloat16."""
    save: Callable[[Path, float, dict[str, Any]], None]
    """Write the model into a directory: (directory, logit scale, facts of the training)."""


def build_clip_objective(
    encoder: HfClip,
    pictures: PictureSource,
    texts: Sequence[str],
    *,
    used_texts: Int64[np.ndarray, " used"],
    parts: frozenset[str],
    rows_of_step: RowsOfStep,
    seed: int,
    augment: str,
    keep_patches: float,
    on_texts: OnTexts | None = None,
) -> Objective:
    """CLIP's own objective: pooled image embeddings against text embeddings.

    Args:
        encoder: The CLIP; its named parts are made trainable here.
        pictures: The images, by row.
        texts: All texts, in the order of their numbers.
        used_texts: Numbers of the texts that the run asks for; where the text tower is not
            trained, they are embedded once, here.
        parts: "vision", "text" or both.
        rows_of_step: Step → image rows.
        seed: Seed of augmentation and patch dropping.
        augment: See `augment_pictures`.
        keep_patches: Share of patches the vision tower sees in a step (FLIP, 2212.00794).
        on_texts: Called while the texts are embedded.
    """
    encode_texts = (
        build_text_encoder(encoder, texts)
        if "text" in parts
        else build_text_table(encoder, texts, used_texts, on_texts=on_texts)
    )
    encoder.unfreeze(set(parts))
    encoder.train()

    def encode_images(step: int) -> Tensor:
        batch = pictures.take(rows_of_step(step), rows_of_step(step + 1)).to(encoder.device)
        batch = augment_pictures(batch, augment, torch_stream(seed, "augment", step))
        return encoder.encode_images(
            encoder.normalise(batch),
            keep_patches=keep_patches,
            generator=torch_stream(seed, "patches", step),
        )

    def save(directory: Path, logit_scale: float, training: dict[str, Any]) -> None:
        encoder.set_logit_scale(logit_scale)
        encoder.save_pretrained(directory)

    return Objective(
        parameters={name: p for name, p in encoder.named_parameters() if p.requires_grad},
        logit_scale=encoder.logit_scale,
        encode_images=encode_images,
        encode_texts=encode_texts,
        score=cosine,
        save=save,
    )


def build_pacl_objective(
    model: Pacl,
    images: TokenCache | PictureSource,
    texts: Sequence[str],
    *,
    used_texts: Int64[np.ndarray, " used"],
    rows_of_step: RowsOfStep,
    seed: int,
    augment: str,
    on_texts: OnTexts | None = None,
) -> Objective:
    """PACL's objective: the embedder's patch embeddings against frozen text embeddings.

    Args:
        model: Frozen encoder and the embedder to train; its patch temperature is used.
        images: Cached patch tokens; or the pictures, which are then encoded in every step.
        texts: All texts, in the order of their numbers.
        used_texts: Numbers of the texts that the run asks for; they are embedded once, here.
        rows_of_step: Step → image rows of the whole batch.
        seed: Seed of augmentation.
        augment: See `augment_pictures`; pictures only.
        on_texts: Called while the texts are embedded.
    """
    encoder, embedder = model.encoder, model.embedder
    if embedder is None:
        raise ValueError("model has no embedder to train")

    def encode_images(step: int) -> Tensor:
        rows = rows_of_step(step)
        share = distributed.own_share(len(rows))
        if isinstance(images, TokenCache):
            return images.take(rows[share]).to(encoder.device)
        batch = images.take(rows[share], rows_of_step(step + 1)[share]).to(encoder.device)
        draws = torch_stream(seed, "augment", step)
        batch = augment_pictures(batch, augment, draws, n_batch=len(rows), share=share)
        with torch.no_grad():
            tokens, _ = encoder.encode_patches(
                encoder.normalise(batch), kind=model.token_kind, layer=model.token_layer
            )
        return tokens

    def save(directory: Path, logit_scale: float, training: dict[str, Any]) -> None:
        model.logit_scale = logit_scale
        model.training_facts = training
        model.save_pretrained(directory)

    return Objective(
        parameters=dict(embedder.named_parameters()),
        logit_scale=encoder.logit_scale,
        encode_images=encode_images,
        encode_texts=build_text_table(encoder, texts, used_texts, on_texts=on_texts),
        score=partial(score_tokens, model),
        save=save,
    )


def score_tokens(
    model: Pacl, patch_tokens: Float[Tensor, "B T E"], text_embeds: Float[Tensor, "C D"]
) -> Float[Tensor, "B C"]:
    """Embed patch tokens and compare them with texts, in chunks of images where they are many.

    Images do not depend on each other, so a chunk's activations need not outlive it: beyond
    ACTIVATIONS_KEPT they are computed again in the backward, chunk by chunk with that of the
    compatibility, whose own results are small and kept.
    """
    embedder = model.embedder
    assert embedder is not None
    per_image = patch_tokens.shape[1] * (embedder.hidden + 2 * embedder.joint_width)
    n_at_once = max(1, ACTIVATIONS_KEPT // per_image)

    def score(tokens: Tensor) -> Tensor:
        return patch_compatibility(
            model.embed_tokens(tokens), text_embeds, patch_temperature=model.patch_temperature
        )

    if len(patch_tokens) <= n_at_once:
        return score(patch_tokens)
    chunks = patch_tokens.split(n_at_once)
    again = partial(
        checkpoint,
        score,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=partial(create_selective_checkpoint_contexts, _keep_compatibility),
    )
    return torch.cat([again(chunk) for chunk in chunks])


def _keep_compatibility(_: Any, operator: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    is_kept = operator.namespace == "pacl"  # the kernels' operators
    return CheckpointPolicy.MUST_SAVE if is_kept else CheckpointPolicy.PREFER_RECOMPUTE


def cosine(image_embeds: Float[Tensor, "B D"], text_embeds: Float[Tensor, "C D"]) -> Tensor:
    """CLIP's score: cosine of every pooled image embedding with every text, in float32."""
    with torch.autocast(image_embeds.device.type, enabled=False):
        images = F.normalize(image_embeds.float(), dim=-1)
        return images @ F.normalize(text_embeds.float(), dim=-1).T


def build_text_encoder(
    encoder: FrozenClip, texts: Sequence[str]
) -> Callable[[np.ndarray], Float[Tensor, "C D"]]:
    """Text numbers → embeddings through the text tower.

    Texts are tokenised once. A batch is padded to its longest text only, and a text that occurs
    more than once in it is encoded once.
    """
    device = encoder.device
    ids, mask, _ = encoder.tokenize(texts)
    lengths = mask.sum(dim=1).numpy()
    ids, mask = ids.to(device), mask.to(device)

    def encode(numbers: np.ndarray) -> Tensor:
        unique, place = np.unique(numbers, return_inverse=True)
        longest = int(lengths[unique].max())
        chosen = torch.from_numpy(unique).to(device)
        embeds = encoder.encode_tokens(
            ids.index_select(0, chosen)[:, :longest], mask.index_select(0, chosen)[:, :longest]
        )
        # index_select sums its gradient in a fixed order; that of embeds[place] is not on a CPU.
        return embeds.index_select(0, torch.from_numpy(place).to(device))

    return encode


def build_text_table(
    encoder: FrozenClip,
    texts: Sequence[str],
    used: Int64[np.ndarray, " used"],
    *,
    on_texts: OnTexts | None = None,
) -> Callable[[np.ndarray], Float[Tensor, "C D"]]:
    """Text numbers → embeddings from a table of the used ones, for a text tower that stays frozen.

    Args:
        encoder: Its text tower is used.
        texts: All texts, in the order of their numbers.
        used: Numbers of the texts that will be asked for, ascending. Of several processes each
            embeds a share of them, and all get the whole table.
        on_texts: Called with the texts embedded and those to embed, of this process.
    """
    wanted = [texts[int(number)] for number in used]
    encode = build_text_encoder(encoder, wanted)
    order = np.array(sorted(range(len(wanted)), key=lambda k: len(wanted[k])))  # less padding
    place_of = np.argsort(order)
    table = torch.empty(len(wanted), encoder.joint_width, device=encoder.device)
    share = distributed.own_share(len(wanted))
    with torch.no_grad():
        for start in range(share.start, share.stop, TEXT_CHUNK):
            chunk = slice(start, min(start + TEXT_CHUNK, share.stop))
            table[chunk] = encode(order[chunk]).float()
            if on_texts is not None:
                on_texts(chunk.stop - share.start, share.stop - share.start)
    distributed.exchange_shares(table)

    def look_up(numbers: np.ndarray) -> Tensor:
        places = torch.from_numpy(place_of[np.searchsorted(used, numbers)])
        return table.index_select(0, places.to(encoder.device))

    return look_up
