"""Segmenting on a cluster with Ray Data: one model per actor, the same files as on one machine.

The work is cut into parts of some hundred images, in the order named. An actor writes a part's
files, then its table of areas and scores, whole or not at all; the table says that it is done.
So whatever is killed, an actor or everything, is done again, and nothing is lost or written twice.
"""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from pacl.api import load
from pacl.deploy.items import Item
from pacl.errors import EnvironmentProblem
from pacl.inference.config import SegmentConfig
from pacl.inference.open_words import WordBank
from pacl.results import Segmentation
from pacl.results.folder import OutputFolder
from pacl.results.segmentation import Failure
from pacl.results.writers import Writers
from pacl.runtime.files import write_atomically
from pacl.text.labels import Labels

PART, PARTS_PER_ACTOR = 256, 4
"""Most images of a part, and the least number of parts that each actor should get."""
TABLES = "areas"
"""The folder, within the folder of results, that holds the Parquet files."""
SCHEMA = pa.schema(
    {
        "source": pa.string(),
        "stem": pa.string(),
        "label": pa.string(),
        "area": pa.float64(),
        "mean_score": pa.float64(),
        "error": pa.string(),
    }
)
"""A row per image and label, with its share of the pixels and mean probability; or an error."""


@dataclass(frozen=True)
class Job:
    """What every actor does."""

    model: Mapping[str, Any]
    """Keyword arguments of `pacl.load`."""
    labels: Labels | WordBank
    config: SegmentConfig
    directory: str
    formats: Sequence[str]


class Actor:
    """Segments parts with a model of its own.

    Args:
        job: What to do.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._model = load(**dict(job.model))
        self._writers = Writers(Path(job.directory), job.formats)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Segment one part, and return how many images failed.

        Images that an earlier part's table holds get their files anew, and no rows.
        """
        columns = (batch[name] for name in ("name", "path", "offset", "n_bytes"))
        items = [Item(str(n), str(p), int(o), int(b)) for n, p, o, b in zip(*columns, strict=True)]
        stems = dict(zip((item.name for item in items), map(str, batch["stem"]), strict=True))
        fresh = [item.name for item, old in zip(items, batch["is_known"], strict=True) if not old]
        stream = self._model.stream(
            [item.source() for item in items], self._job.labels, config=self._job.config
        )
        rows: list[dict[str, Any]] = []
        for found in stream:
            if not isinstance(found, Failure):
                self._writers.add(found, stems[str(found.source)])
            if found.source in fresh:
                rows += _rows(found, stems[str(found.source)])
        if fresh:
            write_part(Path(self._job.directory), fresh, rows)
        errors = [row["error"] for row in rows if row["error"]]
        return {"n_images": [len(items)], "n_failed": [len(errors)]}


def _rows(found: Segmentation | Failure, stem: str) -> Iterator[dict[str, Any]]:
    empty: dict[str, Any] = dict.fromkeys(SCHEMA.names) | {"source": found.source, "stem": stem}
    if isinstance(found, Failure):
        yield empty | {"error": found.error}
        return
    labels: Any = found.summary()["labels"]
    for each in labels:
        yield empty | {key: each[key] for key in ("label", "area", "mean_score")}


def write_part(directory: Path, names: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table of one part, under a name that only these images have."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), buffer)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    write_atomically(directory / TABLES / f"part-{digest}.parquet", buffer.getvalue())


def read_done(directory: Path) -> dict[str, str | None]:
    """Return the images that the tables hold, and the error of each that failed."""
    done: dict[str, str | None] = {}
    for path in sorted((directory / TABLES).glob("part-*.parquet")):
        table = pq.read_table(path, columns=["source", "error"])
        sources, errors = (table.column(name).to_pylist() for name in ("source", "error"))
        for source, error in zip(sources, errors, strict=True):
            if done.get(source, "none yet") is not None:  # a later try may have succeeded
                done[source] = error
    return done


def segment_on_ray(
    job: Job,
    items: Iterable[Item],
    folder: OutputFolder,
    *,
    address: str | None,
    n_actors: int,
    again: bool = False,
    show: Callable[[int, int, int], None] = lambda done, n_all, failed: None,
) -> list[Failure]:
    """Segment what is not done yet, on a cluster or on the processes of this machine.

    Args:
        job: What every actor does.
        items: The images; their files must lie where every machine of the cluster sees them, and
            so must the folder.
        folder: Claimed; takes the names of files and notes what is done.
        address: Of a Ray cluster; None: one is started on this machine.
        n_actors: Models that work at once.
        again: Whether to do again what is done.
        show: Called after each part with the numbers of images done, to do, and failed.

    Returns:
        The images that failed, now or in an earlier run whose part was not done again.

    Raises:
        EnvironmentProblem: The cluster cannot be reached.
    """
    directory = Path(job.directory)
    if again:
        shutil.rmtree(directory / TABLES, ignore_errors=True)
    known = {name for name, error in read_done(directory).items() if error is None}
    stems = {item: folder.stem(item.name) for item in items}
    todo = [
        asdict(item) | {"stem": stem, "is_known": item.name in known}
        for item, stem in stems.items()
        if item.name not in known or not folder.has_files(item.name)
    ]
    if todo:
        _start(address)
        n_done = n_failed = 0
        for row in _run(job, todo, n_actors).iter_rows():
            n_done, n_failed = n_done + row["n_images"], n_failed + row["n_failed"]
            show(n_done, len(todo), n_failed)
    found = read_done(directory)
    folder.note_done(item.name for item in stems if found.get(item.name, "") is None)
    return [Failure(name, error) for name, error in found.items() if error is not None]


def _run(job: Job, todo: list[dict[str, Any]], n_actors: int) -> Any:
    size = part_size(len(todo), n_actors=n_actors, batch_size=job.config.batch_size)
    parts = [pa.Table.from_pylist(todo[k : k + size]) for k in range(0, len(todo), size)]
    on_gpu = ray.cluster_resources().get("GPU", 0) > 0 and job.model.get("device") != "cpu"
    return ray.data.from_arrow(parts).map_batches(
        Actor,
        fn_constructor_args=(job,),
        batch_size=size,
        compute=ray.data.ActorPoolStrategy(size=min(n_actors, len(parts))),
        num_cpus=1,
        num_gpus=1 if on_gpu else 0,
    )


def part_size(n_images: int, *, n_actors: int, batch_size: int) -> int:
    """Return the images per part: whole batches, at most PART images or one batch.

    So an image is in the same batch as without a cluster, and small jobs, too, give each actor
    several parts.
    """
    wanted = min(PART, n_images // (PARTS_PER_ACTOR * n_actors))
    return max(1, wanted // batch_size) * batch_size


def _start(address: str | None) -> None:
    if ray.is_initialized():
        return
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray lets many kinds of network error through
        raise EnvironmentProblem(
            f"no Ray cluster at {address}" if address else "Ray does not start here",
            why=str(error),
            fix="ray status shows a cluster's address; without --ray-address one is started here",
        ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
