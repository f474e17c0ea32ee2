"""pacl classify."""

from __future__ import annotations

import json as jsons
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pacl.cli.console import DONE, SOME_FAILED, result, say, table
from pacl.cli.options import ModelOptions, Sources, warn_of_photographs
from pacl.errors import InputError

if TYPE_CHECKING:
    from pacl.inference.classifier import Classification

N_SHOWN = 3


@dataclass(frozen=True)
class Classify:
    """Say how likely each label is for each picture."""

    sources: Sources
    """Pictures: files, folders, patterns in quotes such as "photos/**/*.jpg"."""

    labels: str
    """The classes: "street,beach", or a .txt or .json file."""

    score: Literal["pacl", "clip", "fusion"] | None = None
    """What is compared: the patches' compatibility, CLIP's own pooled embedding, or the mean of
    both; none: pacl with a trained embedder, otherwise clip."""

    patch_stride_px: int | None = None
    """Distance between the patches that pacl compares, at most their size. Smaller is finer and
    slower. none: the patch size."""

    json: bool = False
    """Print one JSON object per picture in place of the table."""

    loading: ModelOptions = field(default_factory=ModelOptions)


def run_classify(options: Classify) -> int:
    """Classify each picture; one that cannot be read is named, and the others go on."""
    from pacl.data.sources import find_images
    from pacl.text.labels import parse_labels

    labels = parse_labels(options.labels)
    paths = find_images(options.sources) if options.sources else []
    if not paths:
        raise InputError("no pictures named", fix='pacl classify photos/ --labels "street,beach"')
    model = options.loading.load()
    warn_of_photographs(model)
    n_failed, rows = 0, []
    for path in paths:
        try:
            found = model.classify(
                path, labels, score=options.score, patch_stride_px=options.patch_stride_px
            )
        except InputError as error:
            n_failed += 1
            say(f"error: {error}")
            continue
        if options.json:
            result(_json_line(str(path), found))
        else:
            best = [f"{label} {p:.1%}" for label, p in found.ranked()[:N_SHOWN]]
            rows.append([str(path), *best])
    if rows:
        header = ["picture", "label", *["then"] * (len(rows[0]) - 2)]
        result(table(header, rows))
    say(f"{len(paths) - n_failed:,} classified, {n_failed:,} failed")
    return SOME_FAILED if n_failed else DONE


def _json_line(source: str, found: Classification) -> str:
    labels = {label: round(p, 6) for label, p in found.ranked()}
    content = {"source": source, "label": found.label, "score": found.score, "labels": labels}
    return jsons.dumps(content, ensure_ascii=False)
