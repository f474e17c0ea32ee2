"""Zero-shot classification sets on the command line: score, keep, go on after an interrupt."""

from __future__ import annotations

import hashlib
import json as jsons
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacl.cli.console import DONE, ShowProgress, progress, result, say, table
from pacl.cli.evaluation import Evaluate, given_settings
from pacl.cli.options import ModelOptions, warn_of_photographs
from pacl.cli.scored import describe_scored
from pacl.errors import InputError
from pacl.evaluation.accuracy_tables import HEADER, accuracy_rows, write_tables
from pacl.inference.config import SegmentConfig
from pacl.runtime.files import read_json_object

if TYPE_CHECKING:
    from pacl.api import Model
    from pacl.datasets.classification import ClassificationBenchmark, ClassificationData
    from pacl.evaluation.classification import SetProgress
    from pacl.modeling.pacl import Pacl

DRAWN_IN = Path("runs")
_SAVE_EVERY_S = 10.0


def run_if_classification(options: Evaluate) -> int | None:
    """Score classification sets, where the options of pacl evaluate name such; else do nothing.

    Returns:
        The exit code, or None where there is nothing to do here.

    Raises:
        InputError: As for run_classification_benchmarks, or options are given that are about
            segmenting.
    """
    names = pick_classification(options.benchmarks, options.root)
    if not names:
        return None
    _refuse_segmenting(names[0], options)
    return run_classification_benchmarks(
        names,
        root=options.root,
        output=options.output,
        loading=options.loading,
        templates=options.templates,
        patch_stride_px=options.segmenting.patch_stride_px,
        batch_size=options.segmenting.batch_size,
        json=options.json,
    )


def _refuse_segmenting(name: str, options: Evaluate) -> None:
    flags = ("all", "preset", "pamr", "baseline", "labels", "profile")
    given = [f"--{flag}" for flag in flags if getattr(options, flag)]
    given += [flag for flag in given_settings(options.segmenting) if flag != "--patch-stride-px"]
    if given:
        raise InputError(
            f"{name} is a set to classify: {', '.join(given)} would do nothing", fix="leave it out"
        )


def pick_classification(names: Sequence[str], root: Path | None) -> tuple[str, ...]:
    """The names, where they are of classification sets; none, where they are of something else.

    A folder of images and masks that is called like a set is a folder, unless there is a root.

    Raises:
        InputError: They are of both.
    """
    from pacl.datasets.classification import CLASSIFICATION_NAMES

    picked = tuple(
        name
        for name in names
        if name in CLASSIFICATION_NAMES and not (root is None and (Path(name) / "masks").is_dir())
    )
    others = [name for name in names if name not in picked]
    if picked and others:
        raise InputError(
            f"{picked[0]} is a set to classify, {others[0]} one to segment",
            fix="evaluate them by two commands",
        )
    return picked


def run_classification_benchmarks(
    names: Sequence[str],
    *,
    root: Path | None,
    output: Path,
    loading: ModelOptions,
    templates: str | None = None,
    patch_stride_px: int | None = None,
    batch_size: int = 64,
    json: bool = False,
) -> int:
    """Score a model on classification sets, print the table and keep the numbers.

    Args:
        names: Of the sets, from `pacl.datasets.classification.CLASSIFICATION_NAMES`.
        root: The folder that holds the sets; for image-folder, the folder itself.
        output: Gets one JSON file per set and the tables classification.md and .csv.
        loading: Which model.
        templates: A name in `pacl.text.templates.TEMPLATES`; None: the templates of each set.
        patch_stride_px: Distance between the patches that PACL compares; None: the patch size.
        batch_size: Pictures encoded together.
        json: Print the JSON in place of the table.

    Raises:
        InputError: A set is unknown or not below root, the templates are unknown, the stride is
            wider than a patch, or output holds scores that were made with other settings.
    """
    from pacl.datasets.classification import find_classification
    from pacl.inference.segmenter import check_config

    benchmarks = [find_classification(name) for name in dict.fromkeys(names)]
    found = [(each, each.read(_root_of(each.name, root))) for each in benchmarks]
    model = loading.load()
    stride = SegmentConfig(patch_stride_px=patch_stride_px)
    check_config(stride, patch_px=model.pacl.encoder.patch_size_px)
    if any(each.name != "storybook-things" for each in benchmarks):
        warn_of_photographs(model)
    contents = []
    for benchmark, data in found:
        for warning in benchmark.warnings(data):
            say(f"note: {warning}")
        content = describe_scored(benchmark.name, loading, model)
        content |= _settings(benchmark, data, model.pacl, templates, patch_stride_px)
        path = output / f"{_file_stem(content)}.json"
        contents.append(_score(content, path, benchmark, data, model, batch_size))
    result(jsons.dumps(contents, indent=1) if json else table(HEADER, accuracy_rows(contents)))
    write_tables(_read_scores(output), output)
    say(f"wrote {output / 'classification.md'} and .csv")
    return DONE


def _root_of(name: str, root: Path | None) -> Path:
    if root is not None:
        return root
    if name == "storybook-things":
        return DRAWN_IN
    raise InputError(
        f"where is {name}?", fix=f"pacl evaluate {name} --root FOLDER, the folder that holds it"
    )


def _settings(
    benchmark: ClassificationBenchmark,
    data: ClassificationData,
    pacl: Pacl,
    templates: str | None,
    patch_stride_px: int | None,
) -> dict[str, Any]:
    """Everything that decides the numbers."""
    from pacl.evaluation.classification import N_TO_CHOOSE_ON

    return {
        "title": benchmark.title,
        "usual_metric": benchmark.usual_metric,
        "warnings": list(benchmark.warnings(data)),
        "settings": {
            "n_images": len(data.test),
            "targets": hashlib.sha256(data.test.targets.tobytes()).hexdigest()[:16],
            "prompts": [list(words) for words in data.labels.prompts],
            "templates": list(_find_templates(benchmark, templates)),
            "patch_stride_px": patch_stride_px or pacl.encoder.patch_size_px,
            "n_train": 0 if data.train is None else min(len(data.train), N_TO_CHOOSE_ON),
            "weights": _fingerprint(pacl),
        },
    }


def _find_templates(benchmark: ClassificationBenchmark, name: str | None) -> tuple[str, ...]:
    from pacl.text.templates import TEMPLATES

    if name is None:
        return benchmark.templates
    if name not in TEMPLATES:
        raise InputError(f"unknown templates {name!r}", fix=f"use {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def _fingerprint(pacl: Pacl) -> str:
    """Tells the encoder's and the embedder's weights from any other."""
    digest = hashlib.sha256(pacl.encoder.fingerprint.encode())
    digest.update(f"{pacl.token_kind} {pacl.token_layer} {pacl.patch_temperature}".encode())
    for name, tensor in sorted(pacl.embedder.state_dict().items() if pacl.embedder else ()):
        digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _file_stem(content: dict[str, Any]) -> str:
    words = (content["benchmark"], content["model"], content["embedder"] or "")
    return "_".join(re.sub(r"[^\w.]+", "-", word).strip("-.") for word in words if word)


def _score(
    content: dict[str, Any],
    path: Path,
    benchmark: ClassificationBenchmark,
    data: ClassificationData,
    model: Model,
    batch_size: int,
) -> dict[str, Any]:
    """What the file at path holds, or will hold after scoring."""
    from pacl.evaluation.classification import evaluate_set
    from pacl.runtime.files import write_atomically

    saved = _read_saved(path, content)
    if saved is not None:
        say(f"{benchmark.name}: scored before, in {path}")
        return saved
    partial_path = path.with_suffix(".partial.json")
    resume = _read_partial(partial_path, content)
    if resume is not None:
        say(f"{benchmark.name}: going on after {resume.n_done:,} of {len(data.test):,} images")
    templates = content["settings"]["templates"]
    n_prompts = len(templates) * sum(map(len, data.labels.prompts))
    say(f"{benchmark.name}: {n_prompts:,} prompts, {len(data.test):,} images")
    with progress(benchmark.name) as show:
        report = evaluate_set(
            model,
            data,
            templates=templates,
            patch_stride_px=content["settings"]["patch_stride_px"],
            batch_size=batch_size,
            resume=resume,
            on_progress=_Keeper(partial_path, content, show),
            on_choosing=lambda done, total: show(done, total, "training pictures"),
        )
    content |= report.to_json()
    write_atomically(path, (jsons.dumps(content, indent=1) + "\n").encode())
    partial_path.unlink(missing_ok=True)
    say(f"wrote {path}")
    return content


class _Keeper:
    """Shows the accuracy so far and now and then keeps the counts."""

    def __init__(self, path: Path, content: dict[str, Any], show: ShowProgress) -> None:
        self._path = path
        self._settings = content["settings"]
        self._show = show
        self._saved_s = time.monotonic()

    def __call__(self, counts: SetProgress, n_images: int) -> None:
        from pacl.runtime.files import write_atomically

        self._show(counts.n_done, n_images, f"top-1 {counts.counts['pacl'].top1():.1%}")
        if time.monotonic() - self._saved_s >= _SAVE_EVERY_S and counts.n_done < n_images:
            kept = {"settings": self._settings, "progress": counts.to_json()}
            write_atomically(self._path, jsons.dumps(kept).encode())
            self._saved_s = time.monotonic()


def _read_saved(path: Path, content: dict[str, Any]) -> dict[str, Any] | None:
    """The scores in a file, if there are any.

    Raises:
        InputError: They were made with other settings and must not be taken for these.
    """
    saved = read_json_object(path)
    if "rows" not in saved:
        return None
    wanted = content["settings"]
    differing = [key for key in wanted if saved.get("settings", {}).get(key) != wanted[key]]
    if differing:
        raise InputError(
            f"{path} holds scores of other settings: {', '.join(differing)}",
            fix="choose another --output, or delete the file",
        )
    return saved


def _read_scores(output: Path) -> list[dict[str, Any]]:
    """All scores of classification sets in a folder, of earlier commands too."""
    contents = [read_json_object(path) for path in sorted(output.glob("*.json"))]
    return [each for each in contents if {"usual_metric", "settings", "rows"} <= each.keys()]


def _read_partial(path: Path, content: dict[str, Any]) -> SetProgress | None:
    from pacl.evaluation.classification import SetProgress

    kept = read_json_object(path)
    if kept.get("settings") != content["settings"]:
        return None
    try:
        return SetProgress.from_json(kept["progress"])
    except (KeyError, TypeError, ValueError):
        return None
