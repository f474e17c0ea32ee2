"""pacl evaluate: a model against true masks."""

from __future__ import annotations

import json as jsons
from typing import TYPE_CHECKING, Any

from pacl.cli.classification import run_if_classification
from pacl.cli.console import DONE, SOME_FAILED, duration, result, say, table
from pacl.cli.evaluation import (
    Evaluate,
    given_settings,
    open_all,
    open_jobs,
    run_job,
    write_results,
)
from pacl.errors import InputError

if TYPE_CHECKING:
    from pacl.api import Model


def run_evaluate(options: Evaluate) -> int:
    """Score, print, and keep the numbers with their protocol; 1 where a set was refused."""
    if (code := run_if_classification(options)) is not None:
        return code
    _check(options)
    jobs, refused = open_all(options) if options.all else (open_jobs(options), 0)
    model = _load(options)
    contents = []
    for job in jobs:
        content = run_job(job, model, options)
        contents.append(content)
        if not options.json:
            result(_score_table(content))
        _tell_seconds(content)
        write_results(job, content, options.output, model)
    if options.json:
        result(jsons.dumps(contents[0] if len(contents) == 1 else contents, indent=1))
    return SOME_FAILED if refused else DONE


def _check(options: Evaluate) -> None:
    """Refuse options that exclude each other."""
    if options.all == bool(options.benchmarks):
        raise InputError(
            "--all and names of benchmarks exclude each other"
            if options.all
            else "no benchmark named",
            fix="pacl evaluate voc20 --root DIR, or pacl evaluate --all --root DIR",
        )
    given = given_settings(options.segmenting)
    if options.preset is not None and given:
        raise InputError(
            f"the preset {options.preset} decides {', '.join(given)}",
            fix="leave them out; or leave out --preset to use settings of your own",
        )
    if options.templates is not None:
        raise InputError(
            "--templates is for sets to classify",
            fix="leave it out; --preset decides the templates, or the model's own are taken",
        )
    if options.baseline is not None and options.loading.embedder is not None:
        raise InputError("--baseline and --embedder exclude each other", fix="give one of them")


def _load(options: Evaluate) -> Model:
    model = options.loading.load()
    if options.baseline is None:
        return model
    from pacl.api import Model
    from pacl.modeling.pacl import Pacl

    encoder = model.pacl.encoder
    baseline = Model(Pacl(encoder=encoder, embedder=None, token_kind=options.baseline))
    baseline.pacl.use_engine(options.loading.engine)
    say(f"scored: {baseline.describe()}")
    return baseline


def _score_table(content: dict[str, Any]) -> str:
    reports = list(content["rows"].values())
    header = ["class", "IoU", "with PAMR"][: 1 + len(reports)]
    rows = [
        [label, *(_figure(report["iou"][label]) for report in reports)] for label in content["iou"]
    ]
    names = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"}
    rows += [[words, *(_figure(report[key]) for report in reports)] for key, words in names.items()]
    return table(header, rows)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _tell_seconds(content: dict[str, Any]) -> None:
    say(f"{content['n_images']:,} images, {duration(content['seconds'])}")
    if "profile" in content:
        profile = content["profile"]
        rows = [[stage, f"{seconds:.2f}"] for stage, seconds in profile["seconds"].items()]
        say(table(["stage", "seconds"], rows))
        say(f"everything but the encoder: {profile['share_besides_encoder']:.1%}")
