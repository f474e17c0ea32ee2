"""Classifying whole images: by PACL's compatibility, by CLIP's own cosine, or by both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pacl.errors import InputError
from pacl.inference.vocabulary import Vocabulary
from pacl.modeling.pacl import Pacl

SCORES = ("pacl", "clip", "fusion")
"""pacl: the compatibility of the patches; clip: the cosine of CLIP's pooled embedding; fusion:
the mean of both logits, an option of ours that the paper does not have."""


@dataclass(frozen=True, eq=False)
class Classification:
    """How likely each label is for one image."""

    labels: tuple[str, ...]
    """The class names, in the order the user gave them."""
    probabilities: Float[np.ndarray, " C"]
    """One per label, in [0, 1]; they sum to 1, or to less where a class has several names."""
    score: str
    """What was compared, one of SCORES."""

    @property
    def label(self) -> str:
        """The most probable label."""
        return self.labels[int(self.probabilities.argmax())]

    def ranked(self) -> list[tuple[str, float]]:
        """All labels with their probabilities, the most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")
        return [(self.labels[k], float(self.probabilities[k])) for k in order]

    def summary(self) -> dict[str, object]:
        """Return JSON values: the best label, what was compared, each label's probability."""
        labels = {label: round(p, 6) for label, p in self.ranked()}
        return {"label": self.label, "score": self.score, "labels": labels}


def image_logits(
    model: Pacl,
    images: Float[Tensor, "B 3 H W"],
    text_embeds: Float[Tensor, "N D"],
    *,
    score: str,
    logit_scale: float | None = None,
    patch_stride_px: int | None = None,
) -> Float[Tensor, "B N"]:
    """Score every image with every text, times the logit scale.

    Args:
        model: With a trained embedder, or the training-free baseline.
        images: Normalised.
        text_embeds: One row per text.
        score: One of SCORES; "pacl" is φ̂ (paper, compatibility function), "clip" the cosine that
            CLIP itself uses.
        logit_scale: Factor of the cosines; None: the one each score was trained with.
        patch_stride_px: Distance between the patches that are compared, as in segmenting; None:
            the patch size. CLIP's own cosine does not depend on it.

    Raises:
        InputError: The score is unknown.
    """
    if score not in SCORES:
        raise InputError(f"unknown score {score!r}", fix=f"use {', '.join(SCORES)}")
    images = images.to(model.device)
    logits = []
    if score in ("pacl", "fusion"):
        patch_embeds = model.patch_embeds(images, stride_px=patch_stride_px).flatten(1, 2)
        compatibility = model.compatibility(patch_embeds, text_embeds)
        logits.append(compatibility * (logit_scale or model.logit_scale))
    if score in ("clip", "fusion"):
        cosine = (model.encoder.encode_images(images) @ text_embeds.T).float()
        logits.append(cosine * (logit_scale or model.encoder.logit_scale))
    return torch.stack(logits).mean(dim=0)


@torch.inference_mode()
def class_probabilities(
    model: Pacl,
    images: Float[Tensor, "B 3 H W"],
    vocabulary: Vocabulary,
    *,
    score: str,
    logit_scale: float | None = None,
    patch_stride_px: int | None = None,
) -> Float[Tensor, "B C"]:
    """Compute each class's probability: softmax over all names, maximum within a class.

    Arguments and errors as for image_logits.
    """
    logits = image_logits(
        model,
        images,
        vocabulary.text_embeds,
        score=score,
        logit_scale=logit_scale,
        patch_stride_px=patch_stride_px,
    )
    names = vocabulary.class_of_name
    probabilities = logits.softmax(dim=1)
    per_class = [probabilities[:, names == k].amax(dim=1) for k in range(len(vocabulary.labels))]
    return torch.stack(per_class, dim=1)
