"""pacl segment: many images into a folder, skipping what is done and continuing after errors."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pacl.cli.console import DONE, SOME_FAILED, Pace, progress, result, result_json_line, say
from pacl.cli.options import ModelOptions, Sources, find_named, parse_shard
from pacl.errors import InputError
from pacl.inference.config import SegmentConfig

if TYPE_CHECKING:
    from pacl.api import Model
    from pacl.data.sources import Sources as FoundSources
    from pacl.inference.open_words import WordBank
    from pacl.results.folder import OutputFolder
    from pacl.results.segmentation import Failure
    from pacl.text.labels import Labels


@dataclass(frozen=True)
class Segment:
    """Label every pixel of images with the words you give."""

    sources: Sources
    """Images: files, folders, patterns in quotes such as "photos/**/*.jpg", .txt lists, videos, tar
    archives, http addresses, or - for an image on stdin."""

    labels: str
    """The classes: "sky,road,car", or a .txt or .json file; {"car": ["car", "van"]} in a .json
    file gives a class several names. Or a benchmark's: voc20, voc21, context59, context60,
    coco-object, coco-stuff171, ade150, cityscapes. Or auto: words are chosen image by image."""

    words: Path | None = None
    """What auto chooses from: a file of a word per line, or a table of captions whose nouns are
    taken. none: the nouns of the model's training captions, or pacl's lexicon."""

    background_words: str = ""
    """Words for what is none of the classes, "wall,floor,ceiling": where one wins, there is no
    label."""

    output: Path = Path("runs/segment")
    """Folder for the results; its pictures.jsonl lists the files of each image."""

    formats: str = "png,overlay,json"
    """What is written for each image: png (label map), overlay, json (areas), npz (arrays), masks
    and heatmaps (a PNG per class); for the folder: coco, coco-polygons, panoptic, cvat,
    label-studio, label-studio-brush, ultralytics, lightly (docs/labels.md)."""

    overwrite: bool = False
    """Segment images again that are already done."""

    polygons: bool = False
    """Write coco with polygons: as if coco-polygons were named in --formats."""

    every: int = 1
    """Of a video take every so many frames."""

    on_error: Literal["skip", "stop"] = "skip"
    """What happens at an image that fails: it is listed in failures.csv and the rest continue, or
    nothing more is segmented."""

    shard: str = "0/1"
    """I/N: the share of process I, from 0, of N that work on the same images; they may write into
    the same folder."""

    ray: bool = False
    """Share the work among the machines of a Ray cluster, all of which see the same files: files,
    folders, patterns, .tar and .parquet. Areas and scores are written to areas/ as Parquet, too."""

    ray_address: str | None = None
    """The cluster, as in "ray://head:10001" or "auto"; none: processes of this machine."""

    actors: int = 2
    """With --ray, the models that work at once: each takes a CPU core, or a GPU."""

    json: bool = False
    """Print one JSON object per image, with an "error" where it failed."""

    loading: ModelOptions = field(default_factory=ModelOptions)

    segmenting: SegmentConfig = field(default_factory=SegmentConfig)


def run_segment(options: Segment) -> int:
    """Segment what is not done yet; 1 if some images failed."""
    from pacl.inference.open_words import read_words
    from pacl.results.folder import OutputFolder
    from pacl.text.labels import parse_labels

    config, labels = options.segmenting, _read_named(options)
    words = options.words and read_words(options.words)
    shard = parse_shard(options.shard)
    if config.stability is not None and shard[1] > 1:
        raise InputError("--stability needs all frames in order", fix="leave out --shard")
    folder = OutputFolder(options.output, _parse_formats(options), shard=shard)
    if options.ray:
        _check_cluster(options)
    else:
        sources = find_named(
            options.sources,
            example='pacl segment photos/ --labels "sky,road,car"',
            every=options.every,
        )
    model = options.loading.load(is_for_photographs=True)
    if labels is not None:
        if n_cut := model.count_cut(labels):
            n_tokens = model.pacl.text.context_length
            say(f"warning: {n_cut:,} prompts are longer than the model's {n_tokens} tokens: cut")
        if options.ray:
            return _segment_on_cluster(model, labels, folder, options)
        folder.claim(model.settings(labels, config), may_replace=options.overwrite)
        return _segment_all(model, sources, labels, folder, options)
    words = words or model.default_words()
    settings = model.settings(parse_labels(words), config) | {"words": "auto"}
    folder.claim(settings, may_replace=options.overwrite)
    say(f"choosing from {len(words):,} words")
    images = [place for place in options.sources if place != "-"]
    kept = options.output / "words.json"
    bank = model.word_bank(images, words=words, config=config, kept=kept)
    return _segment_all(model, sources, bank, folder, options)


def _check_cluster(options: Segment) -> None:
    """Refuse what does not go with --ray."""
    from pacl.runtime.packages import require_packages

    require_packages(["ray", "pyarrow"], purpose="--ray")
    if options.labels == "auto":
        raise InputError("--ray needs labels: words that all machines share", fix="--labels a,b")
    idle = {
        "--stability": options.segmenting.stability is not None,
        "--json": options.json,
        "--shard": options.shard != "0/1",
        "--every": options.every != 1,
        "--on-error": options.on_error != "skip",
    }
    if given := [flag for flag, is_given in idle.items() if is_given]:
        raise InputError(f"{', '.join(given)} would do nothing with --ray", fix="leave it out")


def _read_named(options: Segment) -> Labels | None:
    """Read the labels that are named; None where words are chosen image by image."""
    from pacl.inference.vocabulary import read_labels
    from pacl.text.labels import with_background

    background = [word for word in options.background_words.split(",") if word.strip()]
    if options.labels != "auto":
        if options.words:
            raise InputError("--words is for --labels auto", fix="leave it out")
        return with_background(read_labels(options.labels), background)
    if background:
        raise InputError("--background-words need labels", fix="leave them out, or name --labels")
    return None


def _segment_all(
    model: Model,
    sources: FoundSources,
    labels: Labels | WordBank,
    folder: OutputFolder,
    options: Segment,
) -> int:
    from pacl.results.segmentation import Failure

    config, n_images, n_tried = options.segmenting, sources.count(), 0
    todo = folder.iter_todo(
        sources, again=options.overwrite, needs_frames=config.stability is not None
    )
    failures, overlay, pace = [], None, Pace()
    with progress("segment") as show:
        for n_tried, found in enumerate(model.stream(todo, labels, config=config), start=1):
            if isinstance(found, Failure):
                failures.append(found)
                if options.json:
                    result_json_line(asdict(found))
                say(f"failed: {found.describe()}")
                if options.on_error == "stop":
                    break
            else:
                files = folder.save(found, str(found.source))
                overlay = overlay or files.get("overlay")
                if options.json:
                    paths = {name: str(path) for name, path in files.items()}
                    result_json_line(found.summary() | {"files": paths})
                else:
                    result(found.describe())
            left = None if n_images is None else folder.count_todo(n_images, n_tried)
            show(n_tried, left, pace.describe(n_tried, left, len(failures)))
    remarks = [f"{n_tried - len(failures):,} images segmented into {folder.directory}"]
    if folder.n_skipped:
        n_all = folder.n_skipped + n_tried
        remarks.insert(0, f"{folder.n_skipped:,} of {n_all:,} images are done already: skipped")
    if overlay:
        remarks.append(f"look at: {overlay}")
    return _finish(folder, failures, remarks)


def _segment_on_cluster(
    model: Model, labels: Labels, folder: OutputFolder, options: Segment
) -> int:
    from pacl.deploy.items import iter_items
    from pacl.deploy.ray_data import Job, read_done, segment_on_ray

    folder.claim(
        model.settings(labels, options.segmenting),
        may_replace=options.overwrite,
        holds_results=bool(read_done(folder.directory)),
    )
    pace = Pace()
    with progress("segment") as show:
        failures = segment_on_ray(
            Job(
                options.loading.keywords,
                labels,
                options.segmenting,
                str(folder.directory.resolve()),
                _parse_formats(options),
            ),
            iter_items(options.sources),
            folder,
            address=options.ray_address,
            n_actors=options.actors,
            again=options.overwrite,
            show=lambda n, n_all, failed: show(n, n_all, pace.describe(n, n_all, failed)),
        )
    place = folder.directory
    remark = f"segmented into {place}; areas and scores are in areas/*.parquet there"
    return _finish(folder, failures, [remark])


def _finish(folder: OutputFolder, failures: list[Failure], remarks: list[str]) -> int:
    """Close the folder and say what was done; 1 if some images failed."""
    path = folder.close(failures)
    say(*remarks)
    if path:
        say(f"{len(failures):,} failed, see {path}; the same command tries them again")
    return SOME_FAILED if failures else DONE


def _parse_formats(options: Segment) -> list[str]:
    words = (word.strip() for word in options.formats.split(","))
    formats = list(dict.fromkeys(word for word in words if word))
    if options.polygons:
        formats = [name for name in formats if not name.startswith("coco")] + ["coco-polygons"]
    return formats
