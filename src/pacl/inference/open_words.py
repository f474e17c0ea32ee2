"""Segmenting without any labels: which words of a list are in an image, image by image.

Of all words, those stand out in an image that fit it better than the others do, less a part of
how well they fit any image. They compete for its pixels; words that win next to nothing are
dropped, and the rest compete again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pacl.data.pairs import read_pairs
from pacl.data.source import Source
from pacl.data.tables import TABLE_SUFFIXES
from pacl.errors import InputError
from pacl.inference.segmenter import Prepared, Segmenter
from pacl.inference.vocabulary import Vocabulary
from pacl.results import Segmentation
from pacl.runtime.files import read_json_object, write_atomically
from pacl.text.labels import parse_labels
from pacl.text.nouns import extract_nouns

USUAL_SHARE = 0.5
"""How much of what a word has in every image is taken off: all of it would hide frequent words."""
LEVEL = 0.0
"""A word stands out from this many standard deviations above the mean of all words on: low, since
a missed word is lost and a wrong one seldom wins an area."""
N_WORDS_MAX = 64
"""Most words that compete in an image."""
AREA_MIN = 0.005
"""Least share of the image that a word has to win."""
SAME_WORD = 0.95
"""Cosine of two words, less the mean of all words, from which they mean the same."""
N_CALIBRATION = 200
"""Images that a word's mean is measured on."""


@dataclass(frozen=True, eq=False)
class WordBank:
    """Words to choose from, and how well each fits images in general."""

    vocabulary: Vocabulary
    """One name per word."""
    usual: Float[Tensor, " N"]
    """Mean presence over unlabelled images; 0 where there were none."""


def read_words(path: Path) -> tuple[str, ...]:
    """Read the words to choose from.

    Args:
        path: A text file with a word or phrase per line; or a table of captions (.csv, .tsv,
            .jsonl), whose nouns are taken, the most frequent first.

    Raises:
        InputError: The file cannot be read, or holds no word.
    """
    if path.suffix.lower() in TABLE_SUFFIXES:
        captions = (caption for of_image in read_pairs(path).captions for caption in of_image)
        counts = Counter(noun for caption in captions for noun in extract_nouns(caption))
        words = [word for word, _ in counts.most_common()]
    else:
        words = list(parse_labels(path).names)
    if not words:
        raise InputError(f"no nouns in {path}", fix="give a text file with a word per line")
    return tuple(words)


def presence(scores: Float[Tensor, "N rows columns"], *, temperature: float) -> Float[Tensor, " N"]:
    """Return how well each word fits an image: its cosine, pooled over patches as PACL pools.

    With s_t the cosine of patch t, the sum of softmax_t(s / temperature) s_t: the compatibility's
    own weights, on patches of unit length.
    """
    cosines = scores.flatten(1).float()
    return ((cosines / temperature).softmax(dim=1) * cosines).sum(dim=1)


def calibrate(vocabulary: Vocabulary, presences: Sequence[Float[Tensor, " N"]]) -> WordBank:
    """Measure on unlabelled images how well each word fits images in general.

    Args:
        vocabulary: The words.
        presences: Per image, those of the words; may be none.
    """
    nothing = vocabulary.text_embeds.new_zeros(len(vocabulary.labels))
    return WordBank(vocabulary, torch.stack(list(presences)).mean(0) if presences else nothing)


class OpenSegmenter:
    """Segments images with the words of a bank that stand out in each.

    Args:
        segmenter: Of all the bank's words.
        bank: The words.
        temperature: Of the pooling, see `presence`.
    """

    def __init__(self, segmenter: Segmenter, bank: WordBank, *, temperature: float) -> None:
        self._segmenter, self._bank, self._temperature = segmenter, bank, temperature
        self.prepare = segmenter.prepare

    def segment(self, batch: Sequence[Prepared]) -> list[Segmentation]:
        """Segment prepared images, each with words of its own.

        Args:
            batch: The images; all are held in memory with their results.

        Returns:
            Results whose labels are all words of the bank, and whose `candidates` are those that
            competed last.
        """
        results = []
        all_scores = self._segmenter.score([each.pixels for each in batch])
        for each, scores in zip(batch, all_scores, strict=True):
            size_px = each.image.height, each.image.width
            chosen, label_map, confidence = self.label(scores, size_px)
            results.append(
                Segmentation(
                    image=each.image,
                    labels=self._bank.vocabulary.labels,
                    label_map=label_map.cpu().numpy(),
                    scores=confidence.cpu().numpy(),
                    class_scores=scores.cpu().numpy(),
                    source=each.source,
                    candidates=tuple(chosen),
                )
            )
        return results

    def label(
        self, scores: Float[Tensor, "N rows columns"], size_px: tuple[int, int]
    ) -> tuple[list[int], Int[Tensor, "H W"], Float[Tensor, "H W"]]:
        """Choose an image's words and label its pixels with them.

        Args:
            scores: Of all the bank's words.
            size_px: (height, width) of the image.

        Returns:
            The words' indices, and label and probability of each pixel.
        """
        chosen = self._stand_out(presence(scores, temperature=self._temperature))
        while True:
            label_map, confidence = self._segmenter.label(scores, size_px, candidates=chosen)
            counts = label_map.flatten().bincount(minlength=len(scores) + 1)[1:]
            wins = [k for k in chosen if counts[k] >= AREA_MIN * label_map.numel()]
            if len(wins) == len(chosen) or not wins:
                return chosen, label_map, confidence
            chosen = wins

    def _stand_out(self, found: Float[Tensor, " N"]) -> list[int]:
        """Return the words that stand out, the best first; of words that mean the same one."""
        unusual = found - USUAL_SHARE * self._bank.usual
        place = (unusual - unusual.mean()) / unusual.std(correction=0).clamp(min=1e-6)
        order = place.argsort(descending=True, stable=True)
        order = order[: max(1, int((place > LEVEL).sum()))]
        return order[self._is_first_of_its_kind(order)][:N_WORDS_MAX].tolist()

    def _is_first_of_its_kind(self, order: Int[Tensor, " m"]) -> Bool[Tensor, " m"]:
        embeds = self._bank.vocabulary.text_embeds
        unit = F.normalize((embeds - embeds.mean(dim=0))[order], dim=1)
        is_same = (unit @ unit.T > SAME_WORD).tril(-1)
        keep = torch.ones(len(order), dtype=torch.bool, device=order.device)
        for k in range(1, len(order)):
            keep[k] = not bool((is_same[k] & keep).any())
        return keep


def build_bank(
    segmenter: Segmenter,
    vocabulary: Vocabulary,
    sources: Iterable[Source],
    *,
    temperature: float,
    batch_size: int,
) -> WordBank:
    """Calibrate words on the first N_CALIBRATION of some images that can be read.

    Args:
        segmenter: Of the words.
        vocabulary: The words.
        sources: Unlabelled images; those that cannot be read are passed over.
        temperature: Of the pooling, see `presence`.
        batch_size: Images that are scored together.
    """
    readable = islice(_iter_readable(segmenter, sources), N_CALIBRATION)
    batches = iter(lambda: list(islice(readable, batch_size)), [])
    presences = [
        presence(scores, temperature=temperature)
        for batch in batches
        for scores in segmenter.score([each.pixels for each in batch])
    ]
    return calibrate(vocabulary, presences)


def _iter_readable(segmenter: Segmenter, sources: Iterable[Source]) -> Iterator[Prepared]:
    for source in sources:
        try:
            yield segmenter.prepare(source.open())
        except InputError:  # it is reported where it is segmented
            continue


def save_bank(path: Path, bank: WordBank, *, key: str) -> None:
    """Write what calibration measured.

    Args:
        path: The file.
        bank: The words and their measurements.
        key: Identifies the model and its settings.
    """
    content = {"key": key, "words": bank.vocabulary.labels, "usual": bank.usual.tolist()}
    write_atomically(path, json.dumps(content, ensure_ascii=False).encode())


def load_bank(path: Path, vocabulary: Vocabulary, *, key: str) -> WordBank | None:
    """Read what `save_bank` wrote; None where there is nothing, or of other words or settings."""
    content = read_json_object(path)
    if content.get("key") != key or content.get("words") != list(vocabulary.labels):
        return None
    return WordBank(vocabulary, vocabulary.text_embeds.new_tensor(content["usual"]))
