"""How well patches are aligned with words, and whether they could be (paper, alignment sections).

Patch accuracy asks each patch for its class; semantic coherence asks whether the cosine of two
patch tokens shows that they are of the same class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from pacl.api import Model
from pacl.data.images import open_image
from pacl.datasets.segmentation.masks import MaskDataset, MaskItem
from pacl.errors import EnvironmentProblem, InputError
from pacl.evaluation.metrics.bootstrap import (
    draw_images,
    percentile_interval,
    resample_auroc,
    resample_share,
)
from pacl.evaluation.metrics.coherence import compare_pairs, roc_curve
from pacl.evaluation.metrics.segmentation import NO_CLASS, PatchAccuracy, patch_labels
from pacl.evaluation.plan import SegmentationSet
from pacl.evaluation.records import (
    MEANINGLESS,
    Subject,
    drawn_only,
    file_stem,
    without_nan,
    write_json,
)
from pacl.inference.config import SegmentConfig
from pacl.inference.segmenter import best_of_names, working_size_px
from pacl.inference.vocabulary import Vocabulary
from pacl.inference.windows import PatchScorer
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers import VisionTower
from pacl.results.figures import draw_roc

MAX_ROC_POINTS = 200
CONFIDENCE = 0.95
_N_DRAWN, _N_DRAWN_PER_IMAGE = 100_000, 64


@dataclass(frozen=True)
class Estimate:
    """A rate in [0, 1] and how far it would move on other images of the same kind."""

    value: float
    low: float
    """Lower end of the interval; nan where nothing was resampled."""
    high: float


_UNKNOWN = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class TokenAlignment:
    """Alignment of one kind of patch tokens on one data set."""

    patch_accuracy_all: Estimate
    """Share of patches whose best class is their label, every class a candidate; nan for frozen
    tokens of a tower that has no joint space with the texts."""
    patch_accuracy_present: Estimate
    """The same with only the classes of the same image as candidates: easier."""
    coherence_auroc: Estimate
    """Area under the ROC curve of "same class?" by the cosine of two patches."""
    roc: dict[str, list[float]]
    """The curve: "fpr" and "tpr", thinned to at most 200 points."""


@dataclass(frozen=True)
class AlignmentReport:
    """Alignment of one model's patches on one data set, before and after its embedder."""

    frozen: TokenAlignment
    """Before training. Coherence: of the frozen tokens that the embedder reads. Accuracy: of the
    last block's tokens through CLIP's own projection, which is made for no other block's."""
    embedded: TokenAlignment
    """The patch embeddings in the joint space: of PACL's embedder, where there is one."""
    n_patches: int
    """Labelled patches, all of which the accuracies count."""
    n_images: int
    n_resamples: int
    confidence: float
    """Resamples for the intervals; whole images are resampled (see `metrics.bootstrap`)."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; nan becomes null."""
        return without_nan(asdict(self))


@dataclass(frozen=True)
class _ImagePatches:
    """What is kept of one image."""

    counts: dict[str, tuple[int, int]]
    """Patches right among all classes and among those present, for "embedded", and for "frozen"
    where the towers are a CLIP."""
    n_patches: int
    tokens: Float[Tensor, "n E"]
    embeds: Float[Tensor, "n D"]
    labels: Int[Tensor, " n"]
    """Of some of its labelled patches, for the coherence."""


def check_sampling(*, n_pairs: int, n_resamples: int) -> None:
    """Refuse numbers that `measure_alignment` could not draw, before anything is opened.

    Raises:
        InputError: One of them is too small.
    """
    if n_pairs < 1:
        raise InputError(f"--n-pairs must be at least 1, got {n_pairs}")
    if n_resamples < 0:
        raise InputError(f"--n-resamples must not be negative, got {n_resamples}")


def measure_alignment(
    model: Model,
    dataset: MaskDataset,
    *,
    n_pairs: int = 200_000,
    n_resamples: int = 0,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> AlignmentReport:
    """Patch accuracy and semantic coherence on images and masks, in one pass over the images.

    Args:
        model: Any CLIP, with an embedder or as a training-free baseline; or any pair of towers
            with an embedder.
        dataset: Images, masks, class names, ids to ignore.
        n_pairs: Pairs of patches that are compared, from any images; the patches are up to 64
            of each image, 100,000 in all.
        n_resamples: Resamples of the images for the intervals (1,000 is usual); 0: no intervals.
        seed: Seeds the sampling of patches, pairs and resamples.
        on_progress: Called with the images done and the images in all.

    Raises:
        InputError: An image or a mask cannot be read, or there is nothing to draw.
    """
    check_sampling(n_pairs=n_pairs, n_resamples=n_resamples)
    vocabulary = model.vocabulary(dataset.labels)
    generator = torch.Generator().manual_seed(seed)
    n_drawn = max(2, min(_N_DRAWN_PER_IMAGE, _N_DRAWN // len(dataset)))
    images = []
    for item in dataset:
        images.append(_measure_image(model, dataset, item, vocabulary, n_drawn, generator))
        if on_progress is not None:
            on_progress(len(images), len(dataset))
    resamples = draw_images(len(images), n_resamples, seed=seed)
    kinds = {
        "frozen": [image.tokens for image in images],
        "embedded": [image.embeds for image in images],
    }
    frozen, embedded = (
        _summarise(kind, tokens, images, resamples, n_pairs=n_pairs, seed=seed)
        for kind, tokens in kinds.items()
    )
    return AlignmentReport(
        frozen=frozen,
        embedded=embedded,
        n_patches=sum(image.n_patches for image in images),
        n_images=len(images),
        n_resamples=n_resamples,
        confidence=CONFIDENCE,
    )


@torch.inference_mode()
def _measure_image(
    model: Model,
    dataset: MaskDataset,
    item: MaskItem,
    vocabulary: Vocabulary,
    n_drawn: int,
    generator: torch.Generator,
) -> _ImagePatches:
    """Encode an image once and read everything off its patches."""
    pacl = model.pacl
    pixels = _read_image(pacl.vision, item)[None].to(pacl.device)
    tokens, grid = pacl.vision.encode_patches(pixels, kind=pacl.token_kind, layer=pacl.token_layer)
    labels = _labels_of_patches(dataset, item, grid).flatten()
    embeds = pacl.embed_tokens(tokens)
    joint = {"embedded": embeds}
    if pacl.is_clip:
        joint["frozen"] = _embed_as_clip(pacl, pixels, tokens)
    accuracies = {kind: _count_right(each[0], labels, vocabulary) for kind, each in joint.items()}
    rows = (labels != NO_CLASS).nonzero().flatten()
    n_patches = len(rows)
    rows = rows[torch.randperm(n_patches, generator=generator)[:n_drawn]]
    return _ImagePatches(
        counts=accuracies,
        n_patches=n_patches,
        tokens=tokens[0, rows.to(tokens.device)].cpu(),
        embeds=embeds[0, rows.to(embeds.device)].cpu(),
        labels=labels[rows],
    )


def _embed_as_clip(pacl: Pacl, pixels: Tensor, tokens: Tensor) -> Tensor:
    """CLIP's own patch tokens in the joint space (1, T, D): the last block's, projected.

    Args:
        pacl: The model.
        pixels: One image.
        tokens: Frozen tokens; used if they are of the model's kind and layer.
    """
    if (pacl.token_kind, pacl.token_layer) != ("clip", -1):
        tokens, _ = pacl.encoder.encode_patches(pixels, kind="clip")
    return pacl.encoder.project_patches(tokens)


def _count_right(embeds: Tensor, labels: Tensor, vocabulary: Vocabulary) -> tuple[int, int]:
    """Patches (T, D) whose best class is their label: of all classes, of those present."""
    text_embeds = vocabulary.text_embeds.to(embeds.dtype)
    cosines = text_embeds @ functional.normalize(embeds, dim=-1).T
    of_classes = best_of_names(
        cosines[:, :, None], vocabulary.class_of_name, len(vocabulary.labels)
    )
    accuracy = PatchAccuracy()
    accuracy.update(of_classes.flatten(1), labels)
    return accuracy.n_right_all, accuracy.n_right_present


def _summarise(
    kind: str,
    tokens: Sequence[Tensor],
    images: Sequence[_ImagePatches],
    resamples: Tensor,
    *,
    n_pairs: int,
    seed: int,
) -> TokenAlignment:
    """The scores of one kind of tokens with their intervals."""
    n_patches = torch.tensor([image.n_patches for image in images])
    of_all = of_present = _UNKNOWN
    if kind in images[0].counts:
        n_all, n_present = torch.tensor([image.counts[kind] for image in images]).T
        of_all = _estimate_share(n_all, n_patches, resamples)
        of_present = _estimate_share(n_present, n_patches, resamples)
    image_of_token = torch.cat([torch.full((len(each),), k) for k, each in enumerate(tokens)])
    labels = torch.cat([image.labels for image in images])
    pairs = compare_pairs(torch.cat(list(tokens)), labels, n_pairs=n_pairs, seed=seed)
    fpr, tpr, auroc = roc_curve(pairs.cosines, pairs.is_same)
    areas = resample_auroc(
        pairs.cosines,
        pairs.is_same,
        first_image=image_of_token[pairs.first],
        second_image=image_of_token[pairs.second],
        counts=resamples,
    )
    thin = torch.linspace(0, len(fpr) - 1, MAX_ROC_POINTS).round().long().unique()
    return TokenAlignment(
        patch_accuracy_all=of_all,
        patch_accuracy_present=of_present,
        coherence_auroc=_estimate(auroc, areas),
        roc={"fpr": fpr[thin].tolist(), "tpr": tpr[thin].tolist()},
    )


def _estimate_share(n_right: Tensor, n_all: Tensor, resamples: Tensor) -> Estimate:
    value = (n_right.sum().double() / n_all.sum()).item()
    return _estimate(value, resample_share(n_right, n_all, resamples))


def _estimate(value: float, resampled: Tensor) -> Estimate:
    return Estimate(value, *percentile_interval(resampled, confidence=CONFIDENCE))


@torch.inference_mode()
def measure_patch_accuracy(
    scorer: PatchScorer,
    dataset: MaskDataset,
    *,
    encoder: VisionTower,
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


def _read_image(encoder: VisionTower, item: MaskItem) -> Tensor:
    """The whole image, resized to whole patches, normalised (3, H, W)."""
    image = open_image(item.image_path)
    size_px = working_size_px(image.height, image.width, encoder=encoder, config=SegmentConfig())
    return encoder.prepare(image, size_px=size_px)


def _labels_of_patches(dataset: MaskDataset, item: MaskItem, grid: tuple[int, int]) -> Tensor:
    mask = torch.from_numpy(dataset.read_mask(item))
    return patch_labels(
        mask, grid, n_classes=len(dataset.labels), ignore_label=dataset.ignore_label
    )


@dataclass(frozen=True)
class SavedAlignment:
    """A report with what was measured, as it was written."""

    content: dict[str, Any]
    """JSON values."""
    notes: tuple[str, ...]
    """What a user should know of it."""


def save_alignment(
    report: AlignmentReport,
    opened: SegmentationSet,
    model: Model,
    subject: Subject,
    output: Path,
    *,
    n_pairs: int,
    seed: int,
) -> SavedAlignment:
    """Write a report as JSON, and its ROC curves as a plot where matplotlib is installed.

    Args:
        report: What `measure_alignment` returned.
        opened: The data set.
        model: The model.
        subject: What it is called.
        output: The folder to write to.
        n_pairs: As they were given to `measure_alignment`.
        seed: Likewise.

    Raises:
        EnvironmentProblem: The folder cannot be written.
    """
    name = subject.model, subject.embedder or ""
    path = output / f"{file_stem(opened.name, *name)}.json"
    kept = ("model", "embedder", "description", "pacl")
    content = {"benchmark": opened.name, **{key: getattr(subject, key) for key in kept},
               "n_pairs": n_pairs, "seed": seed, **report.to_json()}  # fmt: skip
    write_json(content, path)
    notes = [f"wrote {path}"]
    if drawn_only(model, is_drawn=opened.is_drawn):
        notes.append(f"note: {MEANINGLESS}")
    if not model.pacl.is_clip:
        notes.append("note: no patch accuracy of frozen tokens, which no CLIP ties to the texts")
    curves = {"frozen tokens": report.frozen, "patch embeddings": report.embedded}
    drawn = {
        f"{name}, AUROC {each.coherence_auroc.value:.3f}": (each.roc["fpr"], each.roc["tpr"])
        for name, each in curves.items()
    }
    try:
        draw_roc(drawn, path.with_suffix(".png"))
        notes.append(f"wrote {path.with_suffix('.png')}")
    except EnvironmentProblem as error:
        notes.append(f"no plot: {error}")
    return SavedAlignment(content, tuple(notes))
