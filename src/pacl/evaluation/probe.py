"""A supervised linear probe on frozen patch tokens: the ceiling that alignment can be held to.

It sees masks, so it is never part of PACL; it says how much of the scene the tokens hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pacl.data.images import open_image
from pacl.datasets.segmentation.masks import MaskDataset
from pacl.evaluation.metrics.segmentation import NO_CLASS, patch_labels
from pacl.inference.windows import PatchScorer
from pacl.modeling.towers import FrozenClip


@dataclass(frozen=True)
class TokenChoice:
    """Which frozen tokens the probe reads; names as in `FrozenClip.encode_patches`."""

    kind: str = "clip"
    layer: int = -1


def build_probe_scorer(
    encoder: FrozenClip,
    probe: nn.Linear,
    tokens: TokenChoice,
    *,
    patch_stride_px: int | None = None,
) -> PatchScorer:
    """Scores of each class at each patch, to be used where a PACL model's cosines are."""

    @torch.inference_mode()
    def score_patches(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C rows columns"]:
        patch_tokens, grid = encoder.encode_patches(
            images, kind=tokens.kind, layer=tokens.layer, stride_px=patch_stride_px
        )
        return probe(patch_tokens).transpose(1, 2).unflatten(2, grid)

    return score_patches


def fit_linear_probe(
    encoder: FrozenClip,
    dataset: MaskDataset,
    tokens: TokenChoice,
    *,
    epochs: int = 20,
    batch_size: int = 4096,
    lr: float = 5e-3,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> nn.Linear:
    """Multinomial logistic regression from patch tokens to the majority class of their pixels.

    Args:
        encoder: The frozen CLIP.
        dataset: Images with masks, other than those it will be scored on.
        tokens: Which tokens it reads.
        epochs: Passes of AdamW over all patches, the rate falling along a cosine.
        batch_size: Patches per step.
        lr: Highest learning rate.
        seed: Seeds the order of the training tokens.
        on_progress: Called with the images encoded and the images in all.

    Returns:
        (E -> C) linear layer.
    """
    features, labels = _encode_patches(encoder, dataset, tokens, on_progress)
    mean, std = features.mean(dim=0), features.std(dim=0) + 1e-6
    features = (features - mean) / std
    generator = torch.Generator().manual_seed(seed)
    probe = nn.Linear(features.shape[1], len(dataset.labels))
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=lr, weight_decay=1e-4)
    n_steps = epochs * -(-len(features) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(features), generator=generator).split(batch_size):
            optimiser.zero_grad()
            F.cross_entropy(probe(features[rows]), labels[rows]).backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():  # fold the standardisation into the layer
        probe.weight.div_(std)
        probe.bias.sub_(probe.weight @ mean)
    return probe.requires_grad_(False)


@torch.inference_mode()
def _encode_patches(
    encoder: FrozenClip,
    dataset: MaskDataset,
    tokens: TokenChoice,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[Tensor, Tensor]:
    """All labelled patches: tokens (N, E) and class ids (N,)."""
    features, labels = [], []
    side = (encoder.image_size_px, encoder.image_size_px)
    for n_done, item in enumerate(dataset, start=1):
        image = encoder.prepare(open_image(item.image_path), size_px=side)[None]
        patch_tokens, grid = encoder.encode_patches(image, kind=tokens.kind, layer=tokens.layer)
        of_patches = patch_labels(
            torch.from_numpy(dataset.read_mask(item)),
            grid,
            n_classes=len(dataset.labels),
            ignore_label=dataset.ignore_label,
        ).flatten()
        is_labelled = of_patches != NO_CLASS
        features.append(patch_tokens[0, is_labelled])
        labels.append(of_patches[is_labelled])
        if on_progress is not None:
            on_progress(n_done, len(dataset))
    return torch.cat(features).clone(), torch.cat(labels).clone()
