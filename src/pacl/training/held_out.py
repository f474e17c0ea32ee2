"""Scores on data that a run is not trained on: retrieval among pairs, or mIoU on masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pacl.api import Model
from pacl.data.opening import open_pairs
from pacl.data.prefetch import prefetch
from pacl.data.stream import HeldStream, MixedStream, PairStream
from pacl.data.tars import TarPairs
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.errors import InputError
from pacl.evaluation.metrics.retrieval import image_to_text_ranks, recalls, text_to_image_ranks
from pacl.evaluation.segmentation import evaluate_folder
from pacl.evaluation.task import digest_data
from pacl.modeling.pacl import Pacl
from pacl.training.config import TrainConfig
from pacl.training.objectives import ClipObjective, cosine
from pacl.training.setup import Setup

MOST_IMAGES = 500
"""Images whose retrieval is scored, each with its first caption, spread over the data."""
_AT_ONCE = 32


@dataclass(frozen=True)
class HeldOutScore:
    """How well a model does on held-out data."""

    score: float
    """Decides which checkpoint is the best; in [0, 1], the higher the better."""
    figures: dict[str, float]
    sentence: str
    """The figures and their values at chance."""


class HeldOut(Protocol):
    """Held-out data, opened once."""

    @property
    def fingerprint(self) -> str:
        """Identifies the data: scores on other data cannot be compared."""
        ...

    def score(self, model: Pacl) -> HeldOutScore:
        """Score a model, which is in evaluation mode."""
        ...


def open_held_out(config: TrainConfig, setup: Setup) -> HeldOut | None:
    """Open the data that the config names.

    Raises:
        InputError: It is not there, cannot be read, or holds fewer than 2 images.
    """
    if config.val is None:
        return None
    if (Path(config.val) / "masks").is_dir():
        return Masks(config.val)
    return Retrieval(config, setup)


class Masks:
    """Images with masks, scored by mIoU."""

    def __init__(self, place: str) -> None:
        self._dataset = FolderDataset(Path(place))
        self.fingerprint = f"masks {digest_data(self._dataset)}"
        self._name = Path(place).name

    def score(self, model: Pacl) -> HeldOutScore:
        """See `HeldOut`."""
        report = evaluate_folder(Model(model), self._dataset)
        n_classes = len(report.labels)
        return HeldOutScore(
            score=report.miou,
            figures={"mIoU": report.miou, "pixel accuracy": report.pixel_accuracy},
            sentence=(
                f"held-out mIoU {report.miou:.1%}: {n_classes} classes on {report.n_images:,} "
                f"images of {self._name}; one label everywhere reaches at most {1 / n_classes:.1%}"
            ),
        )


class Retrieval:
    """Pairs: each image's first caption is to find the image among all, and the other way round.

    What frozen towers say of them is computed once; only what is trained is computed each time.
    """

    def __init__(self, config: TrainConfig, setup: Setup) -> None:
        assert config.val is not None
        opened = open_pairs(config.val, image_key=config.image_key, caption_key=config.caption_key)
        pairs = opened if isinstance(opened, TarPairs | MixedStream) else HeldStream(opened)
        self.fingerprint = f"pairs {pairs.fingerprint}"
        self._clip = setup.objective.encoder if isinstance(setup.objective, ClipObjective) else None
        side = None if config.image_size is None else (config.image_size, config.image_size)
        self._inputs: list[Tensor] = []
        self._texts: list[str] = []
        model = setup.objective.as_model(1.0).eval()
        for image, caption in _iter_readable(pairs, model, side, config.workers):
            self._texts.append(caption)
            self._inputs.append(image)
        model.train()
        if len(self._inputs) < 2:
            raise InputError(f"val: {config.val} has no 2 images to tell apart")
        self._image_of_text = torch.arange(len(self._texts))
        self._encoded = None if self._clip is not None else self._encode(model)

    def _encode(self, model: Pacl) -> tuple[list[Tensor], Tensor]:
        """Encode with towers that are frozen; the images themselves are let go."""
        tokens = []
        with torch.inference_mode():
            while self._inputs:
                batch = torch.stack(self._inputs[:_AT_ONCE]).to(model.device)
                del self._inputs[:_AT_ONCE]
                images = model.vision.normalise(batch)
                tokens.append(model.encode_patches(images)[0].to("cpu", torch.float16))
            return tokens, model.text.encode_texts(self._texts)

    @torch.inference_mode()
    def score(self, model: Pacl) -> HeldOutScore:
        """See `HeldOut`."""
        scores = torch.cat([part.float().cpu() for part in self._iter_scores(model)])
        directions = {
            "text to image": recalls(text_to_image_ranks(scores, self._image_of_text)),
            "image to text": recalls(image_to_text_ranks(scores, self._image_of_text)),
        }
        figures = {f"{way} {k}": v for way, of in directions.items() for k, v in of.items()}
        found, n_images = directions["text to image"], len(scores)
        return HeldOutScore(
            score=sum(figures.values()) / len(figures),
            figures=figures,
            sentence=(
                f"held-out retrieval: a caption finds its image among {n_images:,} first in "
                f"{found['R@1']:.1%} of cases (chance {1 / n_images:.1%}), among the best 10 in "
                f"{found['R@10']:.1%} (chance {min(1.0, 10 / n_images):.1%})"
            ),
        )

    def _iter_scores(self, model: Pacl) -> Iterator[Tensor]:
        if self._clip is not None:
            texts = self._clip.encode_texts(self._texts)
            for start in range(0, len(self._inputs), _AT_ONCE):
                batch = torch.stack(self._inputs[start : start + _AT_ONCE]).to(self._clip.device)
                yield cosine(self._clip.encode_images(self._clip.normalise(batch)), texts)
            return
        assert self._encoded is not None
        tokens, text_embeds = self._encoded
        texts = model.embed_texts(text_embeds)
        for part in tokens:
            yield model.compatibility(model.embed_tokens(part.to(model.device)), texts)


def _iter_readable(
    pairs: PairStream, model: Pacl, size_px: tuple[int, int] | None, workers: int
) -> Iterator[tuple[Tensor, str]]:
    """Yield uint8 images with a caption, spread over the data, where both can be read."""

    def read(row: int) -> tuple[Tensor, str] | None:
        try:
            image = model.vision.resize(pairs.open_image(row), size_px=size_px)
            return image, pairs.read_captions(row)[0]
        except InputError:
            return None

    n_images = min(MOST_IMAGES, len(pairs))
    rows = [k * len(pairs) // n_images for k in range(n_images)]
    batches = [rows[start : start + _AT_ONCE] for start in range(0, n_images, _AT_ONCE)]
    for _, found in prefetch(read, batches, workers=workers):
        yield from (each for each in found if each is not None)
