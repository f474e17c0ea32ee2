"""Many images, one after the other: read ahead, and carry on when one of them fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice

import torch

from pacl.data.prefetch import N_THREADS, prefetch
from pacl.data.sources import Source
from pacl.errors import InputError
from pacl.inference.open_words import OpenSegmenter
from pacl.inference.segmenter import Prepared, Segmenter
from pacl.results import Segmentation
from pacl.results.segmentation import Failure


def stream_segmentations(
    segmenter: Segmenter | OpenSegmenter, sources: Iterable[Source], batch_size: int
) -> Iterator[Segmentation | Failure]:
    """Segment sources in order, one batch at a time; see `pacl.api.Model.stream`.

    Args:
        segmenter: Prepares the images in threads and segments them.
        sources: Consumed one batch ahead and opened in threads while the previous batch is
            segmented.
        batch_size: Images that are segmented together.
    """
    left = iter(sources)
    batches = iter(lambda: list(islice(left, batch_size)), [])
    with closing(prefetch(partial(_prepare, segmenter), batches, workers=N_THREADS)) as reading:
        for _, batch in reading:
            yield from _segment_batch(segmenter, batch)


def _prepare(segmenter: Segmenter | OpenSegmenter, source: Source) -> Prepared | Failure:
    """Open and resize one image, in a thread."""
    try:
        return segmenter.prepare(source.open(), source.name, sequence=source.sequence)
    except InputError as error:
        return Failure(source.name, str(error))


def _segment_batch(
    segmenter: Segmenter | OpenSegmenter, batch: Sequence[Prepared | Failure]
) -> list[Segmentation | Failure]:
    """Segment the images that could be read; if memory runs out, try them one by one."""
    ready = [each for each in batch if isinstance(each, Prepared)]
    try:
        results = iter(segmenter.segment(ready))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(batch) == 1:
            return [Failure(str(ready[0].source), f"out of memory: {error}")]
    else:
        return [each if isinstance(each, Failure) else next(results) for each in batch]
    return [_segment_batch(segmenter, [each])[0] for each in batch]


def is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Return whether memory ran out; torch's CPU allocator raises a plain RuntimeError then."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "DefaultCPUAllocator" in str(error) or "out of memory" in str(error)
