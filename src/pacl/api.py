"""The few calls most users need: load a model, segment, stream, classify."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pacl.data.images import open_image
from pacl.data.sources import Picture, find_images, read_picture
from pacl.errors import InputError, PaclError
from pacl.inference.classifier import Classification, class_probabilities
from pacl.inference.config import SegmentConfig
from pacl.inference.segmenter import build_scorer, check_config, segment_images
from pacl.inference.vocabulary import Vocabulary, encode_vocabulary
from pacl.inference.windows import PatchScorer
from pacl.modeling import pacl as models
from pacl.modeling.engines import DEFAULT_ENGINE
from pacl.modeling.pacl import Pacl
from pacl.results import Segmentation
from pacl.results.segmentation import Failure
from pacl.text.labels import Labels, parse_labels
from pacl.text.templates import PAPER7

LabelsLike = str | Path | Labels | Sequence[str] | Mapping[str, str | Sequence[str]]
"""Labels as `parse_labels` reads them: "sky,road", a file, a list, {"class": [names]}."""


def load(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    embedder: str | Path | None = None,
    engine: str = DEFAULT_ENGINE,
) -> Model:
    """Load a model to segment and classify with.

    Args:
        source: a CLIP's hub id, a local CLIP folder, the folder of a PACL training run, or
            "storybook" for the small model that comes with the package.
        device: where it runs; None: a GPU if there is one.
        embedder: folder of a trained embedder to put on a CLIP; None: the one found with source,
            or else the training-free baseline.
        engine: what runs the encoder on pictures: "torch" (float32), "auto" (the fastest here,
            perhaps in bfloat16), or another of pacl.modeling.engines.ENGINES.

    Raises:
        InputError: there is no such model or engine, or the model's files are damaged or do not
            belong together.
        EnvironmentProblem: the engine's packages are not installed.
    """
    pacl = models.load(source, device=device, embedder=embedder)
    pacl.use_engine(engine)
    return Model(pacl)


class Model:
    """A PACL model and the words last asked for.

    Args:
        pacl: the network, already on its device.
        templates: the prompts each name is put in; the paper's seven unless told otherwise.
    """

    def __init__(self, pacl: Pacl, *, templates: Sequence[str] = PAPER7) -> None:
        self.pacl = pacl.eval()
        self.templates = tuple(templates)
        self._known: tuple[Labels, Vocabulary] | None = None

    def describe(self) -> str:
        """One sentence on what this model is: a trained embedder or a training-free baseline."""
        return self.pacl.describe()

    @property
    def fingerprint(self) -> str:
        """Identifies everything that decides a score, see `Pacl.fingerprint`."""
        return self.pacl.fingerprint

    def vocabulary(self, labels: LabelsLike) -> Vocabulary:
        """Text embeddings of labels; asked again for the same labels, they are not recomputed."""
        parsed = parse_labels(labels)
        if self._known is None or self._known[0] != parsed:
            self._known = parsed, encode_vocabulary(self.pacl, parsed, self.templates)
        return self._known[1]

    def segment(
        self, image: Picture, labels: LabelsLike, *, config: SegmentConfig | None = None
    ) -> Segmentation:
        """Give every pixel of one picture a label (paper, inference).

        Args:
            image: a file, a PIL image, or an (H, W, 3) uint8 array.
            labels: the classes to tell apart, in any form parse_labels reads.
            config: sizes, strides, background rule.

        Returns: labels and scores at the picture's own size.

        Raises:
            InputError: an unreadable picture, empty or repeated labels, sizes that do not fit.
        """
        source = str(image) if isinstance(image, str | Path) else None
        return self._segment([read_picture(image)], [source], self.vocabulary(labels), config)[0]

    def segment_batch(
        self,
        images: Sequence[Image.Image],
        labels: LabelsLike,
        *,
        config: SegmentConfig | None = None,
    ) -> list[Segmentation]:
        """Segment several pictures that are already open, encoded together.

        Args:
            images: upright RGB.
            labels: as for segment.
            config: as for segment.

        Raises:
            InputError: as for segment.
        """
        return self._segment(images, [None] * len(images), self.vocabulary(labels), config)

    def scorer(self, vocabulary: Vocabulary, *, patch_stride_px: int | None = None) -> PatchScorer:
        """The function that scores patches with a vocabulary, see segmenter.build_scorer."""
        return build_scorer(self.pacl, vocabulary.text_embeds, patch_stride_px=patch_stride_px)

    def stream(
        self,
        sources: str | Path | Sequence[str | Path],
        labels: LabelsLike,
        *,
        config: SegmentConfig | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Segmentation | Failure]:
        """Segment many pictures one after the other, going on where one fails.

        Args:
            sources: files, folders (their pictures), patterns ("photos/**/*.jpg"), or several.
            labels: as for segment.
            config: as for segment.
            batch_size: pictures read and encoded together, in place of the config's.

        Returns: an iterator over one Segmentation or Failure per picture, in the order named;
        never more than one batch of them is held.

        Raises:
            InputError: at once, if a source holds no picture, or labels or config are wrong.
        """
        config = config or SegmentConfig()
        if batch_size is not None:
            config = replace(config, batch_size=batch_size)
        check_config(config, patch_px=self.pacl.encoder.patch_size_px)
        return self._stream(find_images(sources), self.vocabulary(labels), config)

    def classify(
        self,
        image: Picture,
        labels: LabelsLike,
        *,
        score: str | None = None,
        logit_scale: float | None = None,
        patch_stride_px: int | None = None,
    ) -> Classification:
        """Say how likely each label is for one picture.

        Args:
            image: as for segment; resized and cropped as the encoder's checkpoint says.
            labels: as for segment.
            score: "pacl", "clip" or "fusion"; None: "pacl" with a trained embedder, else "clip".
            logit_scale: factor of the cosines in the softmax; None: the model's own.
            patch_stride_px: distance between the patches that PACL compares, as in segment's
                config: smaller is slower and finer. None: the patch size.

        Raises:
            InputError: an unreadable picture, empty or repeated labels, an unknown score, a stride
                that exceeds the patch size.
        """
        if score is None:
            score = "pacl" if self.pacl.has_embedder else "clip"
        stride = SegmentConfig(patch_stride_px=patch_stride_px)
        check_config(stride, patch_px=self.pacl.encoder.patch_size_px)
        vocabulary = self.vocabulary(labels)
        images = self.pacl.encoder.preprocess(read_picture(image))[None]
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
        """Patch embeddings in the joint space, not normalised (paper: ê_v(f̂_v(x))).

        Args:
            images: normalised, as pacl.encoder.preprocess gives them; sides of whole patches.
            stride_px: distance between patches; None: the patch size.
        """
        return self.pacl.patch_embeds(images.to(self.pacl.device), stride_px=stride_px)

    def _segment(
        self,
        images: Sequence[Image.Image],
        sources: Sequence[str | None],
        vocabulary: Vocabulary,
        config: SegmentConfig | None,
    ) -> list[Segmentation]:
        config = config or SegmentConfig()
        return segment_images(
            images,
            build_scorer(self.pacl, vocabulary.text_embeds, patch_stride_px=config.patch_stride_px),
            encoder=self.pacl.encoder,
            labels=vocabulary.labels,
            class_of_name=vocabulary.class_of_name,
            logit_scale=self.pacl.logit_scale,
            config=config,
            sources=sources,
        )

    def _stream(
        self, paths: Sequence[Path], vocabulary: Vocabulary, config: SegmentConfig
    ) -> Iterator[Segmentation | Failure]:
        for start in range(0, len(paths), config.batch_size):
            yield from self._segment_files(
                paths[start : start + config.batch_size], vocabulary, config
            )

    def _segment_files(
        self, paths: Sequence[Path], vocabulary: Vocabulary, config: SegmentConfig
    ) -> list[Segmentation | Failure]:
        """One batch of a stream: a result or a failure per file, in order."""
        opened: dict[str, Image.Image] = {}
        failures: dict[str, Failure] = {}
        for path in paths:
            try:
                opened[str(path)] = open_image(path)
            except InputError as error:
                failures[str(path)] = Failure(str(path), str(error))
        results = iter(self._segment_each(opened, vocabulary, config))
        return [failures.get(str(path)) or next(results) for path in paths]

    def _segment_each(
        self, opened: dict[str, Image.Image], vocabulary: Vocabulary, config: SegmentConfig
    ) -> list[Segmentation | Failure]:
        """Segment a batch; if that fails (say, for memory), one by one to find what can be."""
        try:
            return [*self._segment([*opened.values()], [*opened], vocabulary, config)]
        except (PaclError, RuntimeError, MemoryError) as error:
            if len(opened) == 1:
                return [Failure(source, str(error)) for source in opened]
        one_by_one = ({source: image} for source, image in opened.items())
        return [self._segment_each(one, vocabulary, config)[0] for one in one_by_one]
