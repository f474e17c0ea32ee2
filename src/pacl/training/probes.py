"""Probe images: the same few, segmented again and again, so that people see a run learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path

from PIL import Image

from pacl.api import Model
from pacl.data.sources import find_sources
from pacl.data.stream import PairStream
from pacl.errors import InputError
from pacl.modeling.pacl import Pacl
from pacl.results.palette import class_colours
from pacl.results.sheets import draw_sheet
from pacl.results.writers.lettering import LegendEntry
from pacl.text.labels import parse_labels
from pacl.text.nouns import extract_nouns
from pacl.training.config import TrainConfig
from pacl.training.setup import Setup

N_GIVEN, N_CHOSEN, N_WORDS, N_MAPS = 6, 4, 8, 3
"""Images of a folder, images of the training data, words, and heat maps of an image."""
_N_SEARCHED = 40
"""Training images, spread over the data, among which those with many nouns are chosen."""


@dataclass(frozen=True)
class Probe:
    """Images, the words to segment them into, and of each image the words to map."""

    images: Sequence[Image.Image]
    words: tuple[str, ...]
    own_words: Sequence[tuple[str, ...]]

    def draw(self, model: Pacl, path: Path) -> None:
        """Segment the images and draw a sheet: image, regions, heat maps of its own words.

        Raises:
            EnvironmentProblem: The disk is full or cannot be written.
        """
        use = Model(model)
        rows = []
        seen: set[str] = set()
        for image, own in zip(self.images, self.own_words, strict=True):
            found = use.segment(image, self.words)
            areas = found.areas
            shown = own or tuple(sorted(self.words, key=lambda word: -areas[word]))
            seen |= {word for word in self.words if areas[word] > 0}
            maps = [(f"“{word}”", found.heatmap(word)) for word in shown[:N_MAPS]]
            regions = found.overlay(legend=False, opacity=0.7)
            rows.append([("image", image), ("regions", regions), *maps])
        colours = class_colours(self.words).tolist()
        legend: list[LegendEntry] = [
            (word, (red, green, blue))
            for word, (red, green, blue) in zip(self.words, colours, strict=True)
            if word in seen
        ]
        draw_sheet(rows, path, legend=legend)


def build_probe(config: TrainConfig, setup: Setup) -> Probe | None:
    """Read the images that the config names, or choose some; None where there are no words.

    Raises:
        InputError: An image that is named does not exist or cannot be read, or words are repeated.
    """
    given = tuple(config.probe_words and parse_labels(config.probe_words).names)
    if config.probe_images:
        sources = islice(find_sources(config.probe_images), N_GIVEN)
        images = [source.open() for source in sources]
        words = given or setup.words[:N_WORDS]
        return Probe(images, words, [()] * len(images)) if words else None
    chosen = list(islice(_iter_chosen(setup.pairs), N_CHOSEN))
    in_turn = chain.from_iterable(zip_longest(*(nouns for _, nouns in chosen)))
    words = given or tuple(dict.fromkeys(filter(None, in_turn)))[:N_WORDS]
    if not words or not chosen:
        return None
    own = [tuple(noun for noun in nouns if noun in words) for _, nouns in chosen]
    return Probe([image for image, _ in chosen], words, own)


def _iter_chosen(pairs: PairStream) -> Iterator[tuple[Image.Image, list[str]]]:
    """Yield training images and the nouns of their captions, those with many nouns first."""
    n_searched = min(_N_SEARCHED, len(pairs))
    found: list[tuple[int, list[str]]] = []
    for row in (k * len(pairs) // n_searched for k in range(n_searched)):
        try:
            captions = pairs.read_captions(row)
        except InputError:
            continue
        counts = Counter(noun for caption in captions for noun in extract_nouns(caption))
        found.append((row, [noun for noun, _ in counts.most_common()]))
    for row, nouns in sorted(found, key=lambda each: -min(N_MAPS, len(each[1]))):
        try:
            yield pairs.open_image(row), nouns
        except InputError:
            continue
