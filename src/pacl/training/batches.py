"""Which images and which texts make up step number ``step``: a pure function of seed and step.

Nothing here keeps state. A run that stops and starts again draws the same batches from its step
number alone, so a checkpoint holds no random state and no position in a data loader.

Texts are numbered once (``TextTable``): first the unique captions, then every noun in every
template. A batch is a handful of integers; what an integer is turned into (a cached embedding or
tokens for a text tower in training) is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from pacl.data.order import random_stream
from pacl.text.labels import fill_templates

Captions = Sequence[Sequence[str]]


def torch_stream(seed: int, purpose: str, step: int) -> torch.Generator:
    """Return the same kind of generator for torch's operators, on the CPU."""
    state = random_stream(seed, purpose, step).integers(2**63 - 1)
    return torch.Generator().manual_seed(int(state))


def count_steps_per_epoch(n_images: int, batch_size: int) -> int:
    """Count the whole batches of a pass; a partial one counts only where it is the only one."""
    return max(1, n_images // batch_size)


def sample_rows(n_images: int, batch_size: int, *, seed: int, step: int) -> Int64[np.ndarray, "B"]:
    """Draw the image rows of one step: each epoch is a fresh permutation cut into batches.

    Args:
        n_images: Number of images in the data.
        batch_size: Images per step; if it exceeds ``n_images``, the batch is all of them.
        seed: Seed of the run.
        step: Step number from 0, counted over all epochs.

    Returns:
        Row numbers in [0, n_images), each at most once.
    """
    epoch, position = divmod(step, count_steps_per_epoch(n_images, batch_size))
    order = _epoch_order(n_images, seed, epoch)
    return order[position * batch_size : (position + 1) * batch_size]


@lru_cache(maxsize=2)
def _epoch_order(n_images: int, seed: int, epoch: int) -> np.ndarray:
    return random_stream(seed, "order", epoch).permutation(n_images)


@dataclass(frozen=True)
class TextTable:
    """All texts of a data set, numbered: the unique captions, then nouns × templates.

    ``texts[n_captions + noun * n_templates + template]`` is a noun in a template.
    """

    texts: tuple[str, ...]
    n_captions: int
    n_templates: int
    captions_of_image: tuple[np.ndarray, ...]
    """Per image, the text ids of its captions."""
    nouns_of_caption: tuple[np.ndarray, ...]
    """Per caption id, the noun numbers in it."""
    nouns_of_image: tuple[np.ndarray, ...]
    """Per image, the noun numbers in any of its captions."""
    nouns: tuple[str, ...] = ()
    """The nouns themselves."""

    @property
    def n_nouns(self) -> int:
        """Number of distinct nouns in all captions."""
        return (len(self.texts) - self.n_captions) // max(1, self.n_templates)

    def frequent_nouns(self) -> tuple[str, ...]:
        """Return the nouns, those of most images first."""
        if not self.nouns:
            return ()
        counts = np.bincount(np.concatenate(self.nouns_of_image), minlength=len(self.nouns))
        return tuple(self.nouns[k] for k in np.argsort(-counts, kind="stable"))


@dataclass(frozen=True)
class TextBatch:
    """The texts of one step: a caption per image, and the nouns of those captions."""

    ids: Int64[np.ndarray, "N"]
    """Text numbers, N = B + C: the caption drawn for each of the B images, then the C distinct
    nouns of those captions, each in one template."""
    positives: Bool[Tensor, "B C"]
    """True where a caption of the image (any of its captions) names the noun."""


def number_texts(
    captions: Captions,
    *,
    templates: Sequence[str],
    extract_nouns: Callable[[str], Sequence[str]] | None,
) -> TextTable:
    """Number the unique captions of a data set and its nouns in every template (paper, A.2.2).

    Args:
        captions: Per image, one caption or more.
        templates: Prompt templates with one ``{}``.
        extract_nouns: Returns the nouns of a caption; None: nouns are left out.

    Returns:
        The table; nouns are numbered in order of first appearance.
    """
    caption_number: dict[str, int] = {}
    captions_of_image = tuple(
        np.array(
            [caption_number.setdefault(text, len(caption_number)) for text in dict.fromkeys(of)]
        )
        for of in captions
    )
    noun_number: dict[str, int] = {}
    nouns_of_caption = []
    for caption in caption_number:
        nouns = extract_nouns(caption) if extract_nouns else ()
        numbers = [noun_number.setdefault(noun, len(noun_number)) for noun in nouns]
        nouns_of_caption.append(np.array(numbers, dtype=np.int64))
    nouns_of_image = tuple(
        np.unique(np.concatenate([nouns_of_caption[caption] for caption in ids]))
        for ids in captions_of_image
    )
    prompts = [prompt for noun in noun_number for prompt in fill_templates(noun, templates)]
    return TextTable(
        texts=(*caption_number, *prompts),
        n_captions=len(caption_number),
        n_templates=len(templates),
        captions_of_image=captions_of_image,
        nouns_of_caption=tuple(nouns_of_caption),
        nouns_of_image=nouns_of_image,
        nouns=tuple(noun_number),
    )


def sample_texts(table: TextTable, rows: np.ndarray, *, seed: int, step: int) -> TextBatch:
    """Draw one caption per image, and the nouns of those captions, each in one template.

    Args:
        table: The numbered texts.
        rows: Image rows of the step.
        seed: Seed of the run.
        step: Step number from 0.

    Returns:
        Text numbers and the image × noun matrix of positives. Several images may share a noun, and
        an image counts as positive for a noun that only another of its captions names.
    """
    rng = random_stream(seed, "texts", step)
    choices = [table.captions_of_image[row] for row in rows]
    picks = rng.integers([len(ids) for ids in choices])
    caption_ids = np.array([ids[pick] for ids, pick in zip(choices, picks, strict=True)])
    nouns = np.unique(np.concatenate([table.nouns_of_caption[caption] for caption in caption_ids]))
    column_of_noun = np.full(table.n_nouns, -1)
    column_of_noun[nouns] = np.arange(len(nouns))
    positives = torch.zeros(len(rows), len(nouns), dtype=torch.bool)
    for image, row in enumerate(rows):
        columns = column_of_noun[table.nouns_of_image[row]]
        positives[image, columns[columns >= 0]] = True
    template = rng.integers(max(1, table.n_templates), size=len(nouns))
    noun_ids = table.n_captions + nouns * table.n_templates + template
    return TextBatch(ids=np.concatenate([caption_ids, noun_ids]), positives=positives)


def find_false_negatives(
    table: TextTable, rows: np.ndarray, caption_ids: np.ndarray, *, by_nouns: bool
) -> Bool[Tensor, "B B"]:
    """Mark the captions of a step that may describe an image of the step as well as its own does.

    Args:
        table: The numbered texts.
        rows: Image rows of the step.
        caption_ids: Per image, the number of the caption that was drawn for it.
        by_nouns: Whether a caption also counts if it has nouns and the image's captions name
            all of them; otherwise only the image's own captions count.

    Returns:
        True at (i, j) where caption j may describe image i; always true on the diagonal.
    """
    known = np.stack([np.isin(caption_ids, table.captions_of_image[row]) for row in rows])
    if by_nouns:
        of_captions = [table.nouns_of_caption[caption] for caption in caption_ids]
        nouns = np.unique(np.concatenate(of_captions))
        in_caption = np.stack([np.isin(nouns, of) for of in of_captions])
        unnamed = np.stack([~np.isin(nouns, table.nouns_of_image[row]) for row in rows])
        n_unnamed = unnamed.astype(np.float32) @ in_caption.T.astype(np.float32)
        known |= (n_unnamed == 0) & in_caption.any(axis=1)
    return torch.from_numpy(known)


def sample_patches(
    n_images: int, n_patches: int, n_kept: int, *, seed: int, step: int
) -> Int64[Tensor, "B kept"]:
    """Draw the patches of each image of a whole batch that a step is trained on.

    Args:
        n_images: Images of the step over all processes.
        n_patches: Patches of an image.
        n_kept: Patches to draw; capped to `n_patches`.
        seed: Seed of the run.
        step: Step number from 0.

    Returns:
        Patch numbers in ascending order, each at most once per image.
    """
    order = torch.rand(n_images, n_patches, generator=torch_stream(seed, "patch subset", step))
    return order.argsort(dim=1)[:, :n_kept].sort(dim=1).values


def order_texts(table: TextTable, *, seed: int) -> Int64[np.ndarray, " N"]:
    """Order all texts by when a run may need them: as their images come in its first epoch."""
    rows = _epoch_order(len(table.captions_of_image), seed, 0)
    captions, nouns = (
        list(dict.fromkeys(np.concatenate([of_image[row] for row in rows]).tolist()))
        for of_image in (table.captions_of_image, table.nouns_of_image)
    )
    prompts = np.array(nouns, dtype=np.int64)[:, None] * table.n_templates
    prompts = table.n_captions + prompts + np.arange(table.n_templates)
    return np.concatenate([np.array(captions, dtype=np.int64), prompts.reshape(-1)])
