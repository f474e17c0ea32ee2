"""How well patches are aligned with words, and whether they could be (paper, alignment sections).

Patch accuracy asks each patch for its class; semantic coherence asks whether the cosine of two
patch tokens tells that they show the same class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pacl.api import Model
from pacl.coherence import semantic_coherence
from pacl.data.images import open_image
from pacl.data.masks import MaskDataset, MaskItem
from pacl.encoders import FrozenClip
from pacl.metrics import NO_CLASS, PatchAccuracy, patch_labels
from pacl.segmenter import SegmentConfig, best_of_names, working_size_px
from pacl.windows import PatchScorer

MAX_ROC_POINTS = 200


@dataclass(frozen=True)
class AlignmentReport:
    """Alignment of one model's patches on one data set; every rate in [0, 1]."""

    patch_accuracy_all: float
    """Share of patches whose best class is their label, every class a candidate."""
    patch_accuracy_present: float
    """The same with only the classes of the same image as candidates: easier."""
    coherence_auroc: float
    """Area under the ROC curve of "same class?" by the cosine of two frozen patch tokens."""
    coherence_auroc_embedded: float
    """The same for the patch embeddings in the joint space."""
    n_patches: int
    n_images: int
    roc: dict[str, list[float]]
    """The curve of the frozen tokens: "fpr" and "tpr", thinned to at most 200 points."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def measure_alignment(
    model: Model,
    dataset: MaskDataset,
    *,
    n_pairs: int = 200_000,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> AlignmentReport:
    """Patch accuracy and semantic coherence on the images and masks of a folder.

    Args:
        model: Any CLIP, with an embedder or as a training-free baseline.
        dataset: Images, masks, class names, ids to ignore.
        n_pairs: Pairs of patch tokens that are compared, from any images.
        seed: Of the drawn patches and pairs.
        on_progress: Called with the images done and the images in all.

    Raises:
        InputError: An image or a mask cannot be read.
    """
    vocabulary = model.vocabulary(dataset.labels)
    accuracy = measure_patch_accuracy(
        model.scorer(vocabulary),
        dataset,
        encoder=model.pacl.encoder,
        class_of_name=vocabulary.class_of_name,
        on_progress=on_progress,
    )
    tokens, embeds, labels = draw_patches(model, dataset, seed=seed)
    frozen = semantic_coherence(tokens, labels, n_pairs=n_pairs, seed=seed)
    embedded = semantic_coherence(embeds, labels, n_pairs=n_pairs, seed=seed)
    thin = torch.linspace(0, len(frozen.fpr) - 1, MAX_ROC_POINTS).round().long().unique()
    return AlignmentReport(
        patch_accuracy_all=accuracy.over_all(),
        patch_accuracy_present=accuracy.over_present(),
        coherence_auroc=frozen.auroc,
        coherence_auroc_embedded=embedded.auroc,
        n_patches=accuracy.n_patches,
        n_images=len(dataset),
        roc={"fpr": frozen.fpr[thin].tolist(), "tpr": frozen.tpr[thin].tolist()},
    )


@torch.inference_mode()
def measure_patch_accuracy(
    scorer: PatchScorer,
    dataset: MaskDataset,
    *,
    encoder: FrozenClip,
    class_of_name: Tensor,
    on_progress: Callable[[int, int], None] | None = None,
) -> PatchAccuracy:
    """Patch accuracy of any scorer, whole images at the encoder's own resolution and stride.

    Args:
        scorer: For one or several names per class.
        dataset: Images and masks.
        encoder: Resizes and normalises the images.
        class_of_name: Class of each of the scorer's names.
        on_progress: Called with the images done and the images in all.
    """
    accuracy = PatchAccuracy()
    for n_done, item in enumerate(dataset, start=1):
        scores = scorer(_read_image(encoder, item)[None])[0]
        of_classes = best_of_names(scores, class_of_name, len(dataset.labels))
        labels = _labels_of_patches(dataset, item, (scores.shape[1], scores.shape[2]))
        accuracy.update(of_classes.flatten(1), labels.flatten())
        if on_progress is not None:
            on_progress(n_done, len(dataset))
    return accuracy


@torch.inference_mode()
def draw_patches(
    model: Model, dataset: MaskDataset, *, seed: int, n_per_image: int = 64
) -> tuple[Tensor, Tensor, Tensor]:
    """Random labelled patches of every image.

    Returns:
        frozen tokens (N, E), their embeddings (N, D) and class ids (N,).
    """
    generator = torch.Generator().manual_seed(seed)
    pacl, tokens, embeds, labels = model.pacl, [], [], []
    for item in dataset:
        images = _read_image(pacl.encoder, item)[None].to(pacl.device)
        all_tokens, grid = pacl.encoder.encode_patches(
            images, kind=pacl.token_kind, layer=pacl.token_layer
        )
        of_patches = _labels_of_patches(dataset, item, grid).flatten()
        rows = (of_patches != NO_CLASS).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)[:n_per_image]]
        chosen = all_tokens[:, rows]
        tokens.append(chosen[0].cpu())
        embeds.append(pacl.embed_tokens(chosen)[0].cpu())
        labels.append(of_patches[rows])
    return torch.cat(tokens), torch.cat(embeds), torch.cat(labels)


def _read_image(encoder: FrozenClip, item: MaskItem) -> Tensor:
    """The whole picture, resized to whole patches, normalised (3, H, W)."""
    image = open_image(item.image_path)
    size_px = working_size_px(image.height, image.width, encoder=encoder, config=SegmentConfig())
    return encoder.preprocess(image, size_px=size_px)


def _labels_of_patches(dataset: MaskDataset, item: MaskItem, grid: tuple[int, int]) -> Tensor:
    mask = torch.from_numpy(dataset.read_mask(item))
    return patch_labels(
        mask, grid, n_classes=len(dataset.labels), ignore_label=dataset.ignore_label
    )
