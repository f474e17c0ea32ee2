"""pacl evaluate: score models on data sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pacl.cli.console import DONE, SOME_FAILED, duration, progress, result, result_json, say, table
from pacl.cli.options import ModelOptions
from pacl.errors import InputError
from pacl.inference.config import SegmentConfig

if TYPE_CHECKING:
    from pacl.evaluation.records import ScoreRecord

_BENCHMARKS = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="BENCHMARK...", help_behavior_hint="(one or more)"),
]


Preset = Literal["sclip", "tcl", "naclip", "maskclip", "proxyclip", "paper", "restricted"]
Baseline = Literal[
    "clip", "maskclip", "sclip", "clearclip", "naclip", "scclip", "rfclip", "proxyclip"
]


@dataclass(frozen=True)
class Evaluate:
    """Score a model on data sets: segmentation against masks, or classification."""

    benchmarks: _BENCHMARKS = ()
    """voc20, voc21, context59, context60, coco-object, coco-stuff171, ade150, cityscapes; a folder
    of images/NAME.jpg, masks/NAME.png and class names (classes.json, classes.txt, or a known
    folder name such as camvid); or storybook: 300 drawn scenes that no training saw. Or
    classification data sets: imagenet, cifar10, food101, pets, ... (docs/benchmarks.md).
    Or a table of captions (.csv, .tsv, .jsonl), for retrieval."""

    all: bool = False
    """Every segmentation benchmark found under --root."""

    root: Path | None = None
    """Folder with the unpacked benchmarks in their official layouts."""

    preset: Preset | None = None
    """Protocol by name; it sets all segmenting options but the batch size. restricted tells the
    model which classes are in the image: not comparable with anything published. none: sclip on
    the benchmarks, the segmenting options on folders and storybook."""

    pamr: bool = False
    """Add a row with PAMR, even if the preset has none."""

    baseline: Baseline | None = None
    """Score the frozen CLIP with these training-free patch tokens instead of an embedder."""

    proxy_tower: str | None = None
    """The second vision tower of --baseline proxyclip, by hub id or directory: such as
    facebook/dino-vitb8, the paper's, or facebook/dinov2-base."""

    templates: Literal["paper7", "imagenet80", "simple"] | None = None
    """Prompts of the class names of classification data sets; none: each data set's own. Presets
    have theirs."""

    labels: str | None = None
    """Class names by mask id, in place of a folder's: "sky,road" or a .txt or .json file. auto: the
    model chooses words itself, image by image; the names and regions it finds are scored."""

    words: Path | None = None
    """What auto chooses from: a file of a word per line, or a table of captions whose nouns are
    taken. none: the nouns of the model's training captions."""

    output: Path = Path("runs/evaluate")
    """Folder for scores (one JSON each), results.md, results.csv and images. After an interrupt,
    the same command resumes."""

    profile: bool = False
    """Measure the time of each stage."""

    json: bool = False
    """Print JSON in place of the table; a list for several benchmarks."""

    loading: ModelOptions = field(default_factory=ModelOptions)

    segmenting: SegmentConfig = field(default_factory=SegmentConfig)


def run_evaluate(options: Evaluate) -> int:
    """Score, print, and save the numbers with their protocol; 1 if a data set was refused."""
    from pacl.evaluation.plan import Settings, open_sets
    from pacl.evaluation.records import describe_subject
    from pacl.evaluation.run import as_baseline, build_measurement, score
    from pacl.inference.open_words import read_words
    from pacl.modeling.towers import load_vision_tower

    loading, baseline = options.loading, options.baseline
    if baseline is not None and loading.embedder is not None:
        raise InputError("--baseline and --embedder exclude each other", fix="give one of them")
    proxy = options.proxy_tower
    settings = Settings(
        preset=options.preset,
        segmenting=options.segmenting,
        use_pamr=options.pamr,
        use_profile=options.profile,
        baseline=baseline,
        proxy=proxy,
        labels=options.labels,
        templates=options.templates,
        words=options.words and read_words(options.words),
    )
    opened, n_refused = open_sets(
        options.benchmarks,
        root=options.root,
        settings=settings,
        note=say,
        progress=progress,
        every=options.all,
    )
    model = loading.load()
    if baseline is not None:
        tower = proxy and load_vision_tower(proxy, device=model.pacl.device)
        model = as_baseline(model, baseline, engine=loading.engine, proxy=tower or None)
        say(f"scored: {model.describe()}")
    subject = describe_subject(
        model, name=loading.model, embedder=loading.embedder, baseline=baseline,
        engine=loading.engine, proxy=proxy,
    )  # fmt: skip
    records: list[ScoreRecord] = []
    for each in opened:
        measurement = build_measurement(each, model, subject, settings)
        (say if options.json else result)(measurement.describe())
        record = score(
            measurement, options.output, note=say, progress=progress, again=options.profile
        )
        records.append(record)
        _tell(record, is_json=options.json)
    if options.json:
        contents = [record.to_json() for record in records]
        is_one = len(records) == 1 and records[0].task == "segmentation"
        result_json(contents[0] if is_one else contents)
    return SOME_FAILED if n_refused else DONE


def _tell(record: ScoreRecord, *, is_json: bool) -> None:
    """Print a record's table and its time."""
    from pacl.evaluation.tables import score_table

    if not is_json:
        result(table(*score_table(record)))
    say(f"{record.n_images:,} images, {duration(record.seconds)}")
    if profile := record.details.get("profile"):
        rows = [[stage, f"{seconds:.2f}"] for stage, seconds in profile["seconds"].items()]
        say(table(["stage", "seconds"], rows))
        say(f"everything but the encoder: {profile['share_besides_encoder']:.1%}")
