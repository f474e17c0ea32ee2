"""The few calls most users need: load a model, segment, stream, classify."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pacl.data.images import ImageLike, read_image
from pacl.data.sources import Places, find_sources
from pacl.errors import InputError
from pacl.inference.classifier import Classification, class_probabilities
from pacl.inference.config import SegmentConfig
from pacl.inference.open_words import (
    N_CALIBRATION,
    OpenSegmenter,
    WordBank,
    build_bank,
    load_bank,
    save_bank,
)
from pacl.inference.segmenter import Segmenter, build_scorer, check_config
from pacl.inference.stream import stream_segmentations
from pacl.inference.vocabulary import LabelsLike, Vocabulary, read_labels
from pacl.inference.windows import PatchScorer
from pacl.modeling import loading
from pacl.modeling.names import DEFAULT_ENGINE, STORYBOOK, find_source
from pacl.modeling.pacl import Pacl
from pacl.results import Segmentation
from pacl.results.segmentation import Failure
from pacl.text.cleaning import cleaning_mark
from pacl.text.labels import Labels
from pacl.text.nouns import shipped_lexicon
from pacl.text.templates import PAPER7

_DEFAULTS = SegmentConfig()
AUTO = "auto"
"""In place of labels: words are chosen image by image."""


def load(
    source: str | Path | None = None,
    *,
    vision: str | Path | None = None,
    text: str | Path | None = None,
    device: str | torch.device | None = None,
    embedder: str | Path | None = None,
    engine: str = DEFAULT_ENGINE,
) -> Model:
    """Load a model to segment and classify with.

    Args:
        source: A CLIP's hub id, a local CLIP folder, the folder of a PACL training run, or
            "storybook" for the small model that comes with the package.
        vision: The vision tower of that run, where it lies elsewhere now than in training.
        text: The text tower of that run, likewise.
        device: Device to run on; None: a GPU if there is one.
        embedder: Folder of a trained embedder to put on a CLIP; None: the one found with source,
            or else the training-free baseline.
        engine: The runtime of the vision tower: "torch" (float32), "auto" (the fastest on this
            machine, perhaps in bfloat16), or another of pacl.modeling.engines.ENGINES.

    Raises:
        InputError: There is no such model or engine, or the model's files are damaged or do not
            belong together.
        EnvironmentProblem: The engine's packages are not installed.
    """
    pacl = loading.load(source, vision=vision, text=text, device=device, embedder=embedder)
    pacl.use_engine(engine)
    return Model(pacl)


class Model:
    """A PACL model, and the last vocabulary that it encoded.

    Args:
        pacl: The network, already on its device.
        templates: The prompts each name is put in; by default the paper's seven.
    """

    def __init__(self, pacl: Pacl, *, templates: Sequence[str] = PAPER7) -> None:
        self.pacl = pacl.eval()
        self.templates = tuple(templates)
        self._known: tuple[Labels, tuple[str, ...], Vocabulary] | None = None

    def describe(self) -> str:
        """Say in one sentence whether this is a trained embedder or a training-free baseline."""
        return self.pacl.describe()

    @property
    def fingerprint(self) -> str:
        """Identifies everything that decides a score, see `Pacl.fingerprint`."""
        return self.pacl.fingerprint

    def settings(self, labels: Labels, config: SegmentConfig) -> dict[str, Any]:
        """Return everything that decides a segmentation, in the form that run.json stores."""
        weights, _, scoring = self.fingerprint.partition(" ")
        background = {"background": labels.background} if labels.background else {}
        return background | {
            "labels": dict(zip(labels.names, labels.prompts, strict=True)),
            "model": {"is": self.describe(), "weights": weights},
            "options": config.decisive(),
            "scoring": scoring + cleaning_mark(word for of in labels.prompts for word in of),
        }

    def vocabulary(
        self, labels: LabelsLike, *, templates: Sequence[str] | None = None
    ) -> Vocabulary:
        """Encode labels; the last ones are kept and not encoded again.

        Args:
            labels: In any form `read_labels` reads.
            templates: Prompts in place of the model's own.
        """
        parsed, templates = read_labels(labels), tuple(templates or self.templates)
        known = self._known  # another thread may set it meanwhile
        if known is None or known[:2] != (parsed, templates):
            with torch.no_grad():
                text_embeds, class_of_name = self.pacl.encode_classes(parsed, templates)
            known = parsed, templates, Vocabulary(parsed.names, text_embeds, class_of_name)
            self._known = known
        return known[2]

    def count_cut(self, labels: LabelsLike) -> int:
        """Count the prompts of labels that are longer than the text tower reads: it cuts them."""
        prompts = [prompt for group in read_labels(labels).prompts for prompt in group]
        return self.pacl.text.tokenize(prompts)[2]

    def segment(
        self,
        image: ImageLike,
        labels: LabelsLike | WordBank,
        *,
        config: SegmentConfig | None = None,
    ) -> Segmentation:
        """Label every pixel of one image (paper, inference).

        Args:
            image: A file, a PIL image, or an (H, W, 3) uint8 array.
            labels: The classes to tell apart, in any form `read_labels` reads; or "auto", or a
                `word_bank`, for words that are chosen image by image.
            config: Sizes, strides, background rule.

        Returns:
            Labels and scores at the image's own size.

        Raises:
            InputError: The image is unreadable, labels are empty or repeated, or sizes do not fit.
        """
        segmenter = self._segmenter(labels, config or _DEFAULTS)
        source = str(image) if isinstance(image, str | Path) else None
        [result] = segmenter.segment([segmenter.prepare(read_image(image), source)])
        return result

    def segment_batch(
        self,
        images: Sequence[Image.Image],
        labels: LabelsLike | WordBank,
        *,
        config: SegmentConfig | None = None,
    ) -> list[Segmentation]:
        """Segment several images that are already open, encoded together.

        Args:
            images: Upright RGB.
            labels: As for `segment`.
            config: As for `segment`.

        Raises:
            InputError: As for `segment`.
        """
        segmenter = self._segmenter(labels, config or _DEFAULTS)
        return segmenter.segment([segmenter.prepare(image) for image in images])

    def scorer(self, vocabulary: Vocabulary, *, patch_stride_px: int | None = None) -> PatchScorer:
        """Return the function that scores patches with a vocabulary, see `build_scorer`."""
        return build_scorer(self.pacl, vocabulary.text_embeds, patch_stride_px=patch_stride_px)

    def stream(
        self,
        sources: Places,
        labels: LabelsLike | WordBank,
        *,
        config: SegmentConfig | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Segmentation | Failure]:
        """Segment many images one after the other, continuing where one fails.

        While a batch is segmented, threads read and resize the images of the next one.

        Args:
            sources: Files, folders (their images), patterns ("photos/**/*.jpg"), videos, archives,
                addresses and more, or several, see `pacl.data.sources.find_sources`.
            labels: As for `segment`.
            config: As for `segment`.
            batch_size: Images read and encoded together, in place of the config's.

        Returns:
            An iterator over one Segmentation or Failure per image, in the order named. It never
            holds more than one batch of them and the images of the next.

        Raises:
            InputError: A source holds no image, or labels or config are wrong; raised at once.
        """
        config = config or _DEFAULTS
        if batch_size is not None:
            config = replace(config, batch_size=batch_size)
        segmenter = self._segmenter(labels, config)
        return stream_segmentations(segmenter, find_sources(sources), config.batch_size)

    def classify(
        self,
        image: ImageLike,
        labels: LabelsLike,
        *,
        score: str | None = None,
        logit_scale: float | None = None,
        patch_stride_px: int | None = None,
    ) -> Classification:
        """Say how likely each label is for one image.

        Args:
            image: As for `segment`; resized and cropped as the encoder's checkpoint says.
            labels: As for `segment`.
            score: "pacl", "clip" or "fusion"; None: "pacl" with a trained embedder, else "clip".
            logit_scale: Factor of the cosines in the softmax; None: the model's own.
            patch_stride_px: Distance between the patches that PACL compares, as in segment's
                config: smaller is slower and finer. None: the patch size.

        Raises:
            InputError: The image is unreadable, labels are empty or repeated, the score is unknown,
                or the stride exceeds the patch size.
        """
        if score is None:
            score = "pacl" if self.pacl.has_embedder else "clip"
        stride = SegmentConfig(patch_stride_px=patch_stride_px)
        check_config(stride, patch_px=self.pacl.vision.patch_size_px)
        vocabulary = self.vocabulary(replace(read_labels(labels), background=()))
        images = self.pacl.vision.prepare(read_image(image))[None]
        probabilities = class_probabilities(
            self.pacl,
            images,
            vocabulary,
            score=score,
            logit_scale=logit_scale,
            patch_stride_px=patch_stride_px,
        )
        return Classification(vocabulary.labels, probabilities[0].cpu().numpy(), score)

    def patch_embeds(
        self, images: Float[Tensor, "B 3 H W"], *, stride_px: int | None = None
    ) -> Float[Tensor, "B rows columns D"]:
        """Embed patches in the joint space, not normalised (paper: ê_v(f̂_v(x))).

        Args:
            images: Normalised, as pacl.vision.prepare returns them; sides of whole patches.
            stride_px: Distance between patches; None: the patch size.
        """
        return self.pacl.patch_embeds(images.to(self.pacl.device), stride_px=stride_px)

    def word_bank(
        self,
        images: Places = (),
        *,
        words: Sequence[str] | None = None,
        config: SegmentConfig | None = None,
        kept: Path | None = None,
    ) -> WordBank:
        """Prepare to segment without labels: words, and how well each fits images in general.

        Args:
            images: Unlabelled ones, such as those to be segmented; up to 200 are looked at, spread
                evenly over them. None: words are not known to fit any image.
            words: To choose from; None: the nouns of the captions that the model was trained on,
                or else those of pacl's lexicon.
            config: As for `segment`.
            kept: A file that keeps what was measured, so that a later run of the same model and
                words chooses alike, whatever its images.

        Raises:
            InputError: A place holds no image, or there are no words.
        """
        config = config or _DEFAULTS
        vocabulary = self.vocabulary(list(words or self.default_words()))
        key = f"{self.fingerprint} {config.decisive()}"
        bank = None if kept is None else load_bank(kept, vocabulary, key=key)
        if bank is not None:
            return bank
        sources = find_sources(images)
        step = max(1, (sources.count() or 0) // N_CALIBRATION)
        bank = build_bank(
            self._closed_segmenter(vocabulary, config),
            vocabulary,
            islice(sources, 0, None, step),
            temperature=self.pacl.patch_temperature,
            batch_size=config.batch_size,
        )
        if kept is not None:
            save_bank(kept, bank, key=key)
        return bank

    def default_words(self) -> tuple[str, ...]:
        """Return the nouns of the captions that the model was trained on, or pacl's lexicon."""
        return self.pacl.words or tuple(sorted(shipped_lexicon().marks))

    def _segmenter(
        self, labels: LabelsLike | WordBank, config: SegmentConfig
    ) -> Segmenter | OpenSegmenter:
        if labels == AUTO:
            labels = self.word_bank(config=config)
        if not isinstance(labels, WordBank):
            return self._closed_segmenter(self.vocabulary(labels), config)
        return OpenSegmenter(
            self._closed_segmenter(labels.vocabulary, config),
            labels,
            temperature=self.pacl.patch_temperature,
        )

    def _closed_segmenter(self, vocabulary: Vocabulary, config: SegmentConfig) -> Segmenter:
        return Segmenter(
            build_scorer(
                self.pacl,
                vocabulary.text_embeds,
                patch_stride_px=config.patch_stride_px,
                grid=config.grid,
                smoothing=config.smoothing,
            ),
            encoder=self.pacl.vision,
            labels=vocabulary.labels,
            class_of_name=vocabulary.class_of_name,
            logit_scale=self.pacl.logit_scale,
            config=config,
        )


def is_on_storybook(model: Model) -> bool:
    """Return whether a model's frozen CLIP is the embedded one, which has seen drawings only."""
    try:
        embedded = find_source(STORYBOOK)
    except InputError:
        return False
    source = find_source(model.pacl.vision.source)
    return Path(source).resolve() == Path(embedded).resolve()
