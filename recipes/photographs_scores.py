"""What recipes/photographs.py measures, from frozen tokens that are encoded once.

Scores are those of `pacl evaluate` but for the tokens' half precision, which training sees as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from photographs_sheet import WORDS
from PIL import Image
from torch import Tensor

from pacl.api import Model
from pacl.data.pairs import Pairs, PairsReport
from pacl.datasets.segmentation import camvid
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.evaluation.metrics.retrieval import image_to_text_ranks, recalls, text_to_image_ranks
from pacl.evaluation.metrics.segmentation import ConfusionMatrix
from pacl.evaluation.probe import TokenChoice, fit_linear_probe
from pacl.inference.config import SegmentConfig
from pacl.inference.labelling import label_pixels
from pacl.inference.segmenter import working_size_px
from pacl.inference.smoothing import average_alike, find_alike
from pacl.modeling.compatibility import patch_similarity
from pacl.modeling.towers.conv import ConvTower
from pacl.training.token_cache import TokenCache, TokenEncoder, build_token_cache

VIDEOS = ("0001TP", "Seq05VD")
"""What the names of each video's images begin with."""

SHORT_SIDES_PX = (352, 544)
SMOOTHING = (None, 0.02)
PLAIN = (SHORT_SIDES_PX[0], SMOOTHING[0])

Way = tuple[int, float | None]
"""Short side and smoothing: a way of segmenting."""
WAYS: list[Way] = [(side, smoothing) for side in SHORT_SIDES_PX for smoothing in SMOOTHING]
"""The ways of segmenting that are chosen from."""

Counts = dict[str, dict[Way, Tensor]]
"""Video, way of segmenting → confusion matrix."""
ScoreTokens = Callable[[Tensor], Tensor]
"""Tokens (B, T, E) → scores (B, C, T)."""


class Streets:
    """CamVid's two videos: frozen tokens at each size, and truth in nine words.

    Args:
        tower: Encodes the images.
        source: CamVid, with images/ and masks/.
        output: Gets a folder for each video and the tokens; what is there is not made again.
    """

    def __init__(self, tower: ConvTower, source: Path, output: Path) -> None:
        self.tower = tower
        self.datasets = split_camvid(source, output)
        self.masks = {
            video: [dataset.read_mask(item) for item in dataset]
            for video, dataset in self.datasets.items()
        }
        self._tokens: dict[tuple[str, int], TokenCache] = {}
        self._alike: dict[tuple[str, Way], list[Tensor]] = {}
        for video, dataset in self.datasets.items():
            for side in SHORT_SIDES_PX:
                tokens = encode_images(tower, dataset, side, output / f"{video}-{side}")
                self._tokens[video, side] = tokens
                for share in filter(None, SMOOTHING):
                    of_images = [
                        find_alike(each[None], share=share)
                        for each in map(tokens.__getitem__, range(len(tokens)))
                    ]
                    self._alike[video, (side, share)] = of_images

    def count_pixels(self, score: ScoreTokens, videos: Iterable[str] = VIDEOS) -> Counts:
        """Segment videos in every way, at the size of the truth."""
        counts: Counts = {}
        for video in videos:
            matrices = {way: ConfusionMatrix(len(WORDS)) for way in WAYS}
            for side in SHORT_SIDES_PX:
                cache = self._tokens[video, side]
                for k, mask in enumerate(self.masks[video]):
                    plain = score(cache[k][None])
                    for way in ((side, smoothing) for smoothing in SMOOTHING):
                        alike = self._alike.get((video, way))
                        smooth = plain if alike is None else average_alike(plain, alike[k])
                        matrices[way].update(label(smooth[0].unflatten(1, cache.grid), mask), mask)
            counts[video] = {way: matrix.table for way, matrix in matrices.items()}
        return counts

    def score_model(self, model: Model) -> dict[str, float]:
        """MIoU of a model, see `score_ways`."""
        texts = model.vocabulary(list(WORDS.values())).text_embeds

        @torch.inference_mode()
        def score(tokens: Tensor) -> Tensor:
            return patch_similarity(model.pacl.embed_tokens(tokens), texts)

        return score_ways(self.count_pixels(score))

    def score_probe(self) -> dict[str, float]:
        """The supervised ceiling: a linear probe trained on the other video's masks."""
        tokens, counts = TokenChoice(kind="features", layer=-1), Counts()
        for video, other in (VIDEOS, VIDEOS[::-1]):
            probe = fit_linear_probe(self.tower, self.datasets[other], tokens)
            counts |= self.count_pixels(
                lambda tokens, probe=probe: probe(tokens.float()).mT, [video]
            )
        return score_ways(counts)


def encode_images(
    tower: ConvTower, dataset: FolderDataset, short_side_px: int, directory: Path
) -> TokenCache:
    """Encode the images of a video, which are of one size."""
    paths = [item.image_path for item in dataset]
    with Image.open(paths[0]) as first:
        config = SegmentConfig(short_side_px=short_side_px)
        size_px = working_size_px(first.height, first.width, encoder=tower, config=config)
    images = Pairs(paths, [["a street"]] * len(paths), PairsReport(paths[0].parent, "", "", ""))
    encode = TokenEncoder(tower, size_px=size_px, kind="features", batch_size=4)
    return build_token_cache(encode, images, directory=directory)


def label(scores: Tensor, mask: np.ndarray) -> Tensor:
    """The best class of each pixel."""
    height, width = mask.shape
    classes, _ = label_pixels(
        scores,
        class_of_name=torch.arange(len(WORDS)),
        size_px=(height, width),
        logit_scale=1.0,
        wants_confidence=False,
    )
    return classes - 1


def split_camvid(source: Path, output: Path) -> dict[str, FolderDataset]:
    """Lay each video out as a folder of its own, with the ids of the nine classes."""
    new_id = np.full(256, 255, np.uint8)
    for number, name in enumerate(WORDS):
        new_id[camvid.LABELS.index(name)] = number
    for video in VIDEOS:
        for folder in ("images", "masks"):
            (output / video / folder).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / "images").glob(f"{video}*")):
            link = output / video / "images" / path.name
            if not link.exists():
                link.symlink_to(path.resolve())
                mask = np.asarray(Image.open(source / "masks" / f"{path.stem}.png"))
                Image.fromarray(new_id[mask]).save(output / video / "masks" / f"{path.stem}.png")
        labels = json.dumps({"labels": [*WORDS.values()], "ignore": [255]})
        (output / video / "classes.json").write_text(labels, encoding="utf-8")
    return {video: FolderDataset(output / video) for video in VIDEOS}


def miou(tables: Iterable[Tensor]) -> float:
    """Mean IoU of the sum of confusion matrices."""
    total = ConfusionMatrix(len(WORDS))
    for table in tables:
        total.add_table(table)
    return total.mean_iou()


def choose_across(counts: Counts) -> dict[str, Way]:
    """For each video, the way of segmenting that is best on the other one."""
    first, second = VIDEOS
    return {
        video: max(WAYS, key=lambda way: miou([counts[other][way]]))
        for video, other in ((first, second), (second, first))
    }


def score_ways(counts: Counts) -> dict[str, float]:
    """MIoU of all images as they are, and with the way of segmenting chosen on the other video."""
    ways = choose_across(counts)
    return {
        "CamVid mIoU, plain": miou(counts[video][PLAIN] for video in VIDEOS),
        "CamVid mIoU": miou(counts[video][ways[video]] for video in VIDEOS),
    }


@torch.inference_mode()
def score_retrieval(model: Model, pairs: Pairs, images: TokenCache) -> dict[str, float]:
    """R@1 and R@10 both ways, as `pacl evaluate` on the table of captions."""
    texts = [text for of_image in pairs.captions for text in of_image]
    owners = torch.tensor([k for k, of_image in enumerate(pairs.captions) for _ in of_image])
    embeds = model.pacl.embed_texts(model.pacl.text.encode_texts(texts))
    scores = torch.cat(
        [
            model.pacl.compatibility(model.pacl.embed_tokens(tokens), embeds)
            for tokens in images.iter_batches(
                np.split(np.arange(len(images)), range(8, len(images), 8))
            )
        ]
    )
    directions = {
        "text→image": recalls(text_to_image_ranks(scores, owners), at=(1, 10)),
        "image→text": recalls(image_to_text_ranks(scores, owners), at=(1, 10)),
    }
    return {
        f"{direction} {name}": value
        for direction, values in directions.items()
        for name, value in values.items()
    }
