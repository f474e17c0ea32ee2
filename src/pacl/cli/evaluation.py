"""What pacl evaluate does for each data set: open and check it, score, keep the numbers."""

from __future__ import annotations

import json as jsons
import re
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from pacl.cli.console import progress, result, say
from pacl.cli.options import ModelOptions
from pacl.cli.scored import MEANINGLESS, open_benchmark
from pacl.errors import InputError
from pacl.inference.config import SegmentConfig
from pacl.runtime.files import read_json_object

if TYPE_CHECKING:
    from pacl.api import Model
    from pacl.datasets.segmentation.check import BenchmarkReport
    from pacl.datasets.segmentation.masks import MaskDataset
    from pacl.evaluation.presets import Preset
    from pacl.evaluation.task import Task

DEFAULT_PRESET = "sclip"
DEFAULT_ENGINE = "torch"
METHODS = {
    "clip": "CLIP",
    "maskclip": "MaskCLIP",
    "sclip": "SCLIP",
    "clearclip": "ClearCLIP",
    "naclip": "NACLIP",
}


_BENCHMARKS = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="BENCHMARK...", help_behavior_hint="(one or more)"),
]


@dataclass(frozen=True)
class Evaluate:
    """Segment benchmarks' pictures with their class names and compare with their masks."""

    benchmarks: _BENCHMARKS = ()
    """voc20, voc21, context59, context60, coco-object, coco-stuff171, ade150, cityscapes; a folder
    of images/NAME.jpg, masks/NAME.png and class names (classes.json, classes.txt, or a known
    folder name such as camvid); or storybook: 300 drawn scenes that no training saw. Or sets to
    classify: imagenet, caltech101, cifar10, food101, pets, ... (docs/benchmarks.md)."""

    all: bool = False
    """Every segmentation benchmark found under --root."""

    root: Path | None = None
    """Folder that the benchmarks were unpacked in, in their official layouts."""

    preset: Literal["sclip", "tcl", "naclip", "maskclip", "paper", "restricted"] | None = None
    """Protocol by name; it decides all segmenting options but the batch size. restricted tells
    the model which classes are in the image: not comparable with anything published. none: sclip
    on the benchmarks, the segmenting options on folders and storybook."""

    pamr: bool = False
    """Add a row with PAMR, also where the preset has none."""

    baseline: Literal["clip", "maskclip", "sclip", "clearclip", "naclip"] | None = None
    """Score the frozen CLIP with these training-free patch tokens in place of an embedder."""

    templates: Literal["paper7", "imagenet80", "simple"] | None = None
    """Prompts of the class names of sets to classify; none: each set's own. Presets have theirs."""

    labels: str | None = None
    """Class names by mask id, in place of a folder's: "sky,road" or a .txt or .json file."""

    output: Path = Path("runs/evaluate")
    """Folder for scores (one JSON each), results.md, results.csv and pictures. The same command
    goes on after an interrupt."""

    profile: bool = False
    """Say where the time goes."""

    json: bool = False
    """Print the JSON in place of the table; of several benchmarks, a list."""

    loading: ModelOptions = field(default_factory=ModelOptions)

    segmenting: SegmentConfig = field(default_factory=SegmentConfig)


@dataclass(frozen=True)
class Job:
    """A data set that is there and usable."""

    name: str
    """A benchmark's; a folder's own, marked where a benchmark is called so."""
    dataset: MaskDataset
    root: Path
    report: BenchmarkReport | None
    """What the check found; None for storybook, which was drawn just now."""


def open_jobs(options: Evaluate) -> list[Job]:
    """Open and check every data set named; nothing is scored before all are usable.

    Raises:
        InputError: one is not there, or was converted wrongly.
    """
    return [_open(name, options) for name in dict.fromkeys(options.benchmarks)]


def open_all(options: Evaluate) -> tuple[list[Job], int]:
    """Open every benchmark under the root; the others are named and skipped.

    Returns: the usable ones, and how many are there but were refused.

    Raises:
        InputError: none is usable.
    """
    from pacl.datasets.segmentation import NAMES
    from pacl.datasets.segmentation.check import check_benchmark

    jobs, n_refused, missing = [], 0, []
    root = _need_root(options, "--all")
    for name in NAMES:
        report = check_benchmark(name, root)
        if not report.is_there:
            missing.append(name)
        elif not report.is_usable:
            say(f"{name} is refused: {report.problems[0].error()}")
            n_refused += 1
        else:
            jobs.append(_open(name, options, report=report))
    if missing:
        say(f"not under {root}, skipped: {', '.join(missing)}")
    if not jobs:
        raise InputError(
            f"no benchmark under {root} can be evaluated",
            why=f"looked for: {', '.join(NAMES)}",
            fix=f"pacl data check {NAMES[0]} --root {root}",
        )
    return jobs, n_refused


def _open(name: str, options: Evaluate, *, report: BenchmarkReport | None = None) -> Job:
    from pacl.datasets.segmentation import NAMES, load_benchmark
    from pacl.datasets.segmentation.check import check_benchmark
    from pacl.datasets.segmentation.folder import FolderDataset

    if name == "storybook":
        drawn = open_benchmark(name, options.labels)
        return Job(name, drawn, drawn.root, None)
    is_standard = name in NAMES
    if is_standard and options.labels is not None:
        raise InputError(
            f"--labels: {name} has class names of its own",
            fix="leave --labels out, or use a folder",
        )
    root = _need_root(options, name) if is_standard or name == "folder" else Path(name)
    if report is None:
        kind = name if is_standard else "folder"
        report = check_benchmark(kind, root, labels=options.labels)
    report.require_usable()
    for warning in report.warnings:
        say(f"warning: {warning}")
    if is_standard:
        return Job(name, load_benchmark(name, root), root, report)
    folder = FolderDataset(root, labels=options.labels)
    own_name = root.resolve().name
    taken = (*NAMES, "storybook")
    return Job(f"folder {own_name}" if own_name in taken else own_name, folder, root, report)


def _need_root(options: Evaluate, name: str) -> Path:
    if options.root is None:
        raise InputError(
            f"{name} needs --root", why="the folder that the data sets were unpacked in",
            fix=f"pacl evaluate {name} --root DIR"
        )  # fmt: skip
    return options.root


def run_job(job: Job, model: Model, options: Evaluate) -> dict[str, Any]:
    """Score one data set; what its JSON file holds."""
    from pacl.evaluation.predictor import build_predictor
    from pacl.evaluation.samples import draw_samples
    from pacl.evaluation.segmentation import evaluate_task
    from pacl.evaluation.task import build_task
    from pacl.runtime.stopwatch import Stopwatch

    preset = _preset(job, options)
    task = build_task(
        job.name, job.dataset, preset=preset, config=options.segmenting, use_pamr=options.pamr
    )
    (say if options.json else result)(task.describe())
    watch = Stopwatch(_synchronise(model) if options.profile else None)
    predictor = build_predictor(model, task, stopwatch=watch)
    stem = file_stem(job, task, options)
    path, key = options.output / f"{stem}.json", task.key(predictor.fingerprint)
    saved = read_json_object(path)
    if saved.get("key") == key and not options.profile:
        say(f"scored before, in {path}")
        return saved
    with progress(f"evaluate {job.name}") as show:
        scored = evaluate_task(
            predictor,
            state_path=_state_path(options.output, stem),
            on_progress=lambda done, total, miou: show(done, total, f"mIoU {miou:.3f}"),
        )
    if scored.n_resumed:
        say(f"went on after {scored.n_resumed:,} images of an interrupted run")
    profile = _profile(watch) if options.profile else {}
    pictures = draw_samples(predictor, scored.image_miou, options.output / "pictures", stem=stem)
    rows = {name: report.to_json() for name, report in scored.rows.items()}
    first = next(iter(rows.values()))
    return {
        **_describe(job, task, model, options),
        "resolved": predictor.resolved,
        **first,
        "rows": {name: _scores(row) for name, row in rows.items()},
        "pamr": None if task.pamr is None else vars(task.pamr),
        "pictures": pictures,
        **profile,
        "key": key,
        "file": path.name,
    }


def _state_path(output: Path, stem: str) -> Path:
    return output / f".{stem}.unfinished.npz"


def write_results(job: Job, content: dict[str, Any], output: Path, model: Model) -> None:
    """Keep the numbers, bring the tables up to date, and say where they mean nothing."""
    from pacl.evaluation.tables import write_tables
    from pacl.runtime.files import write_atomically

    path = output / content["file"]
    write_atomically(path, (jsons.dumps(content, indent=1) + "\n").encode())
    _state_path(output, path.stem).unlink(missing_ok=True)
    tables = write_tables(output)
    pictures = [each["file"] for each in content["pictures"].values()]
    say(f"wrote {', '.join(map(str, [path, *tables]))}")
    if pictures:
        say(f"look at (ours left, truth right): {', '.join(dict.fromkeys(pictures))}")
    if _is_meaningless(job, model):
        say(f"note: {MEANINGLESS}")


def _is_meaningless(job: Job, model: Model) -> bool:
    """Whether a backbone that has seen drawn scenes only is scored on other pictures."""
    from pacl.api import is_on_storybook

    return is_on_storybook(model) and not (job.root / "storybook.json").is_file()


def file_stem(job: Job, task: Task, options: Evaluate) -> str:
    """Data set, protocol and model, as a file's name; a hash where these do not say it all."""
    loading = options.loading
    protocol = "own" if task.preset is None else task.preset.name
    words = [job.name, protocol, loading.model, loading.embedder or options.baseline or ""]
    if task.preset is None or options.pamr:
        words.append(task.protocol()["hash"][:6])
    if loading.engine != DEFAULT_ENGINE:
        words.append(loading.engine)
    return "_".join(re.sub(r"[^\w.]+", "-", word).strip("-.") for word in words if word)


def given_settings(config: SegmentConfig) -> list[str]:
    """Flags of the segmenting options that were changed, but for the batch size."""
    changed = asdict(replace(config, batch_size=SegmentConfig.batch_size))
    names = [each.name for each in fields(config) if changed[each.name] != each.default]
    return ["--" + name.replace("_", "-") for name in names]


def _preset(job: Job, options: Evaluate) -> Preset | None:
    from pacl.datasets.segmentation import NAMES
    from pacl.evaluation.presets import build_preset

    name = options.preset
    if name is None and job.name in NAMES and not given_settings(options.segmenting):
        name = DEFAULT_PRESET
    return None if name is None else build_preset(name, job.name)


def _describe(job: Job, task: Task, model: Model, options: Evaluate) -> dict[str, Any]:
    import torch

    pacl, report = model.pacl, job.report
    warnings = [] if report is None else list(report.warnings)
    if _is_meaningless(job, model):
        warnings.append("means nothing: the backbone has seen drawn scenes only")
    return {
        "benchmark": job.name,
        "root": str(job.root),
        "warnings": warnings,
        "n_expected": [] if report is None else list(report.n_expected),
        "preset": None if task.preset is None else task.preset.name,
        "preset_hash": None if task.preset is None else task.preset.digest,
        "hash": task.protocol()["hash"],
        "comparable": task.is_comparable and not warnings,
        "method": "PACL" if pacl.has_embedder else METHODS[pacl.token_kind],
        "has_embedder": pacl.has_embedder,
        "model": options.loading.model,
        "embedder": options.loading.embedder,
        "description": model.describe(),
        "fingerprint": model.fingerprint,
        "pacl": metadata.version("pacl"),
        "torch": torch.__version__,
        "device": str(pacl.device),
        "engine": options.loading.engine,
    }


def _scores(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("iou", "miou", "pixel_accuracy", "mean_accuracy")}


def _synchronise(model: Model) -> Any:
    import torch

    return torch.cuda.synchronize if model.pacl.device.type == "cuda" else None


def _profile(watch: Any) -> dict[str, Any]:
    """Seconds by stage. Waiting is left out of the share: it is the threads' time once more."""
    seconds = {name: round(value, 3) for name, value in watch.seconds.items()}
    background = {f"{name} (threads)": round(s, 3) for name, s in watch.background.items()}
    others = [s for name, s in seconds.items() if name not in ("encoder", "words", _WAITING)]
    besides = sum(others) + sum(background.values())
    share = besides / (besides + seconds.get("encoder", 0.0))
    return {"profile": {"seconds": seconds | background, "share_besides_encoder": share}}


_WAITING = "waiting for images"
