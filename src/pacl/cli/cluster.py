"""pacl segment --ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacl.cli.console import DONE, SOME_FAILED, Pace, progress, say

if TYPE_CHECKING:
    from pacl.api import Model
    from pacl.cli.options import ModelOptions
    from pacl.inference.config import SegmentConfig
    from pacl.results.folder import OutputFolder
    from pacl.text.labels import Labels


def segment_on_cluster(
    sources: tuple[str, ...],
    model: Model,
    labels: Labels,
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
        EnvironmentProblem: The cluster cannot be reached.
    """
    from pacl.deploy.items import iter_items
    from pacl.deploy.ray_data import Job, read_done, segment_on_ray

    folder.claim(
        model.settings(labels, config),
        may_replace=again,
        holds_results=bool(read_done(folder.directory)),
    )
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
            show=lambda n, n_all, failed: show(
                n, n_all, pace.describe(n, n_all) + (f"  {failed} failed" if failed else "")
            ),
        )
    path = folder.close(failures)
    say(f"segmented into {folder.directory}; areas and scores are in areas/*.parquet there")
    if path:
        say(f"{len(failures):,} failed, see {path}; the same command tries them again")
    return SOME_FAILED if failures else DONE
