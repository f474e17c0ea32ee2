"""What differs between aligning patches (``pacl``) and training a CLIP (``clip``).

The training loop is one; it asks an ``Objective`` for the image side of a step's images, the text
side of some text numbers, and the compatibility of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from pacl.modeling.pacl import BASELINE_KIND, Pacl
from pacl.modeling.towers.hf import HfClip
from pacl.training.batches import sample_patches, torch_stream
from pacl.training.images import augment_images
from pacl.training.texts import EncodeTexts

ACTIVATIONS_KEPT = 2**28
"""Most activations that a step keeps for the embedder's backward pass: 1 GiB in float32."""


class Objective(Protocol):
    """The parts of a run that depend on its objective."""

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Trained parameters by name, without the logit scale."""
        ...

    @property
    def logit_scale(self) -> float:
        """Initial logit scale, unless the config sets one."""
        ...

    @property
    def encode_texts(self) -> EncodeTexts:
        """Looks up or encodes texts by their numbers."""
        ...

    @property
    def trains_images(self) -> bool:
        """Whether gradients go through `encode_images`."""
        ...

    @property
    def trains_texts(self) -> bool:
        """Whether gradients go through `encode_texts`."""
        ...

    def encode_images(self, images: Tensor, step: int, part: slice) -> Tensor:
        """Encode some of a step's images for `score`.

        Args:
            images: Decoded, uint8 (b, 3, H, W); or cached patch tokens (b, T, E).
            step: Decides the augmentation.
            part: The rows of the whole batch that `images` holds.
        """
        ...

    def score(
        self, image_side: Tensor, text_embeds: Float[Tensor, "C D"], part: slice
    ) -> Float[Tensor, "b C"]:
        """Score images with texts, in [-1, 1], float32.

        Call it under autocast, which embeds tokens in bfloat16.
        """
        ...

    def describe(self) -> str:
        """Say in one sentence what is trained."""
        ...

    def as_model(self, logit_scale: float) -> Pacl:
        """Return the model as it is now, for use between steps; it shares the weights."""
        ...

    def save(self, directory: Path, *, logit_scale: float, training: dict[str, Any]) -> None:
        """Write the model and a record of its training into a directory."""
        ...


@dataclass(frozen=True)
class ClipObjective:
    """CLIP's own objective: pooled image embeddings against text embeddings."""

    encoder: HfClip
    """The CLIP; some of its parts are trainable."""
    encode_texts: EncodeTexts
    seed: int
    """Seeds augmentation and patch dropping."""
    augment: str
    """See `augment_images`."""
    keep_patches: float
    """Share of patches that the vision tower sees in a step (FLIP, arXiv 2212.00794)."""
    batch_size: int
    """Images of a step."""

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the encoder's trainable parts."""
        return {name: p for name, p in self.encoder.named_parameters() if p.requires_grad}

    @property
    def logit_scale(self) -> float:
        """Logit scale of the checkpoint."""
        return self.encoder.logit_scale

    @property
    def trains_images(self) -> bool:
        """Whether the vision tower is trained."""
        return any(not name.startswith("clip.text") for name in self.parameters)

    @property
    def trains_texts(self) -> bool:
        """Whether the text tower is trained."""
        return any(name.startswith("clip.text") for name in self.parameters)

    def encode_images(self, images: Tensor, step: int, part: slice) -> Float[Tensor, "b D"]:
        """Augment, normalise and encode images to pooled embeddings."""
        draws = torch_stream(self.seed, "augment", step)
        images = images.to(self.encoder.device)
        images = augment_images(images, self.augment, draws, n_batch=self.batch_size, share=part)
        return self.encoder.encode_images(
            self.encoder.normalise(images),
            keep_patches=self.keep_patches,
            generator=torch_stream(self.seed, "patches", step),
        )

    def score(self, image_side: Tensor, text_embeds: Tensor, part: slice) -> Float[Tensor, "b C"]:
        """Compute the cosine of every pooled image embedding with every text."""
        return cosine(image_side, text_embeds)

    def describe(self) -> str:
        """Say in one sentence what is trained."""
        return f"A CLIP, begun from {self.encoder.source}: its own objective on whole images."

    def as_model(self, logit_scale: float) -> Pacl:
        """Return the CLIP with its own projection of patches, see `Objective`."""
        return Pacl(
            encoder=self.encoder,
            embedder=None,
            token_kind=BASELINE_KIND,
            logit_scale=logit_scale,
        )

    def save(self, directory: Path, *, logit_scale: float, training: dict[str, Any]) -> None:
        """Write an ordinary CLIP checkpoint."""
        self.encoder.set_logit_scale(logit_scale)
        self.encoder.save_pretrained(directory)


@dataclass(frozen=True)
class PaclObjective:
    """PACL's objective: the embedder's patch embeddings against frozen text embeddings."""

    model: Pacl
    """Frozen towers and the embedder to train."""
    encode_texts: EncodeTexts
    seed: int
    """Seeds augmentation."""
    augment: str
    """See `augment_images`; for images that are encoded in the step."""
    batch_size: int
    """Images of a step over all processes."""
    patches_per_image: int | None = None
    """Random patches of each image per step; None: all."""
    null_similarity: nn.Parameter | None = None
    """Cosine of the null token, where it is learned."""

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the embedders (the text embedder's with a prefix) and of the null token."""
        of_patches, of_texts = self.model.embedder, self.model.text_embedder
        named = {} if of_patches is None else dict(of_patches.named_parameters())
        if of_texts is not None:
            named |= dict(of_texts.named_parameters(prefix="text_embedder"))
        if self.null_similarity is not None:
            named["null_similarity"] = self.null_similarity
        return named

    @property
    def logit_scale(self) -> float:
        """Logit scale of the text tower."""
        return self.model.text.logit_scale

    @property
    def trains_images(self) -> bool:
        """False: patch tokens come from a frozen tower."""
        return False

    @property
    def trains_texts(self) -> bool:
        """False: an embedder of texts belongs to the score."""
        return False

    def encode_images(self, images: Tensor, step: int, part: slice) -> Float[Tensor, "b T E"]:
        """Encode decoded images to patch tokens, or use cached ones; all patches or a sample."""
        tokens = images if images.dtype != torch.uint8 else self._encode(images, step, part)
        if self.patches_per_image is None:
            return tokens.to(self.model.device)
        kept = sample_patches(
            self.batch_size, tokens.shape[1], self.patches_per_image, seed=self.seed, step=step
        )[part]
        in_order = torch.arange(len(kept))[:, None]
        return tokens[in_order.to(tokens.device), kept.to(tokens.device)].to(self.model.device)

    def _encode(self, images: Tensor, step: int, part: slice) -> Float[Tensor, "b T E"]:
        model = self.model
        images = images.to(model.device)
        draws = torch_stream(self.seed, "augment", step)
        images = augment_images(images, self.augment, draws, n_batch=self.batch_size, share=part)
        with torch.no_grad():
            return model.encode_patches(model.vision.normalise(images))[0]

    def score(self, image_side: Tensor, text_embeds: Tensor, part: slice) -> Float[Tensor, "b C"]:
        """Compute the compatibility of every image with every text."""
        own = None
        if self.model.pooling == "own-caption":
            own = torch.arange(self.batch_size)[part]
        return score_tokens(
            self.model,
            image_side,
            self.model.embed_texts(text_embeds),
            null_similarity=self.null_similarity,
            own_texts=own,
        )

    def describe(self) -> str:
        """Say in one sentence what is trained."""
        return self.model.describe()

    def as_model(self, logit_scale: float) -> Pacl:
        """Return the model, see `Objective`."""
        self.model.logit_scale = logit_scale
        if self.null_similarity is not None:
            self.model.null_similarity = self.null_similarity.item()
        return self.model

    def save(self, directory: Path, *, logit_scale: float, training: dict[str, Any]) -> None:
        """Write the embedders and the names of their towers."""
        model = self.as_model(logit_scale)
        model.training_facts = training
        model.save_pretrained(directory)


def score_tokens(
    model: Pacl,
    patch_tokens: Float[Tensor, "B T E"],
    text_embeds: Float[Tensor, "C D"],
    *,
    null_similarity: Tensor | None = None,
    own_texts: Int64[Tensor, " B"] | None = None,
) -> Float[Tensor, "B C"]:
    """Embed patch tokens and score them with texts, in chunks of images where there are many.

    Images do not depend on each other, so activations need not outlive their chunk: beyond
    ACTIVATIONS_KEPT they are recomputed in the backward pass, chunk by chunk. The results of the
    compatibility are small and kept.
    """
    embedder = model.embedder
    per_patch = (
        patch_tokens.shape[2] if embedder is None else embedder.hidden + 2 * embedder.joint_width
    )
    per_image = patch_tokens.shape[1] * per_patch
    n_at_once = max(1, ACTIVATIONS_KEPT // per_image)

    def score(tokens: Tensor, own: Tensor | None) -> Tensor:
        return model.compatibility(
            model.embed_tokens(tokens), text_embeds, null_similarity=null_similarity, own_texts=own
        )

    if len(patch_tokens) <= n_at_once:
        return score(patch_tokens, own_texts)
    chunks = patch_tokens.split(n_at_once)
    own_of = [None] * len(chunks) if own_texts is None else own_texts.split(n_at_once)
    again = partial(
        checkpoint,
        score,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=partial(create_selective_checkpoint_contexts, _keep_compatibility),
    )
    return torch.cat([again(chunk, own) for chunk, own in zip(chunks, own_of, strict=True)])


def _keep_compatibility(_: Any, operator: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    is_kept = operator.namespace == "pacl"  # the kernels' operators
    return CheckpointPolicy.MUST_SAVE if is_kept else CheckpointPolicy.PREFER_RECOMPUTE


def cosine(image_embeds: Float[Tensor, "B D"], text_embeds: Float[Tensor, "C D"]) -> Tensor:
    """Compute CLIP's score in float32: the cosine of every pooled image with every text."""
    with torch.autocast(image_embeds.device.type, enabled=False):
        images = F.normalize(image_embeds.float(), dim=-1)
        return images @ F.normalize(text_embeds.float(), dim=-1).T
