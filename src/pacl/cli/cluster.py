"""pacl segment --ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacl.cli.console import DONE, SOME_FAILED, Pace, progress, say
from pacl.errors import InputError

if TYPE_CHECKING:
    from pacl.cli.options import ModelOptions
    from pacl.inference.config import SegmentConfig
    from pacl.results.folder import OutputFolder
    from pacl.text.labels import Labels


def segment_on_cluster(
    sources: tuple[str, ...],
    labels: Labels | None,
    *,
    loading: ModelOptions,
    config: SegmentConfig,
    folder: OutputFolder,
    formats: list[str],
    address: str | None,
    n_actors: int,
    again: bool,
) -> int:
    """Segment with Ray Data what is not done yet; 1 if some images failed.

    Raises:
        InputError: There are no labels, or an option does not go with --ray.
        EnvironmentProblem: Ray is not installed, or its cluster cannot be reached.
    """
    from pacl.runtime.packages import require_packages

    require_packages(["ray", "pyarrow"], purpose="--ray")
    from pacl.deploy.items import iter_items
    from pacl.deploy.ray_data import Job, segment_on_ray

    if labels is None:
        raise InputError("--ray needs labels: words that all machines share", fix="--labels a,b")
    if config.stability is not None:
        raise InputError("--stability needs all frames in order", fix="leave out --ray")
    model = loading.load()
    folder.claim(model.settings(labels, config), may_replace=again)
    job = Job(
        {
            "source": loading.model,
            "embedder": loading.embedder,
            "device": loading.device,
            "engine": loading.engine,
        },
        labels,
        config,
        str(folder.directory.resolve()),
        formats,
    )
    pace = Pace()
    with progress("segment") as show:
        failures = segment_on_ray(
            job,
            iter_items(sources),
            folder,
            address=address,
            n_actors=n_actors,
            again=again,
            show=lambda n, failed: show(n, None, f"{pace.describe(n, None)}  {failed} failed"),
        )
    path = folder.close(failures)
    say(f"segmented into {folder.directory}; areas and scores are in areas/*.parquet there")
    if path:
        say(f"{len(failures):,} failed, see {path}; the same command tries them again")
    return SOME_FAILED if failures else DONE
