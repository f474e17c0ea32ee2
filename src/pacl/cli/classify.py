"""pacl classify."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pacl.cli.console import DONE, SOME_FAILED, result, result_json_line, say, table
from pacl.cli.options import ModelOptions, Sources, find_named
from pacl.errors import InputError

N_SHOWN = 3


@dataclass(frozen=True)
class Classify:
    """Say how likely each label is for each image."""

    sources: Sources
    """Images: files, folders, patterns in quotes such as "photos/**/*.jpg"."""

    labels: str
    """The classes: "street,beach", a .txt or .json file, or a benchmark's, such as voc20."""

    score: Literal["pacl", "clip", "fusion"] | None = None
    """What is compared: the patches' compatibility, CLIP's own pooled embedding, or the mean of
    both; none: pacl with a trained embedder, otherwise clip."""

    patch_stride_px: int | None = None
    """Distance between the patches that pacl compares, at most their size. Smaller is finer and
    slower. none: the patch size."""

    json: bool = False
    """Print one JSON object per image in place of the table."""

    loading: ModelOptions = field(default_factory=ModelOptions)


def run_classify(options: Classify) -> int:
    """Classify each image; one that cannot be read is named, and the rest continue."""
    from pacl.inference.vocabulary import read_labels

    labels = read_labels(options.labels)
    sources = find_named(options.sources, example='pacl classify photos/ --labels "street,beach"')
    model = options.loading.load(is_for_photographs=True)
    if options.score in ("clip", "fusion"):
        _ = model.pacl.encoder  # towers without a score of their own: one error, not one an image
    n_failed, n_done, rows = 0, 0, []
    for source in sources:
        try:
            found = model.classify(
                source.open(), labels, score=options.score, patch_stride_px=options.patch_stride_px
            )
        except InputError as error:
            n_failed += 1
            say(f"error: {error}")
            continue
        n_done += 1
        if options.json:
            result_json_line({"source": source.name, **found.summary()})
        else:
            best = [f"{label} {p:.1%}" for label, p in found.ranked()[:N_SHOWN]]
            rows.append([source.name, *best])
    if rows:
        header = ["image", "label", *["then"] * (len(rows[0]) - 2)]
        result(table(header, rows))
    say(f"{n_done:,} classified, {n_failed:,} failed")
    return SOME_FAILED if n_failed else DONE
