"""Connected regions of a label map, and the two forms that other programs take them in.

Two pixels belong to one region if they have the same label and a side in common. Pixels of no
label (0) belong to none.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

Ring = list[tuple[int, int]]
"""Corners (x, y) of a closed outline, on the grid of pixel corners; the last joins the first."""


@dataclass(frozen=True, eq=False)
class Region:
    """Pixels of one label that hang together."""

    number: int
    """The label, from 1."""
    rows: Int[np.ndarray, " n"]
    columns: Int[np.ndarray, " n"]

    @property
    def area(self) -> int:
        """Number of pixels."""
        return len(self.rows)

    @property
    def bbox(self) -> tuple[int, int, int, int]:
        """Left, top, width and height, in pixels."""
        left, top = int(self.columns.min()), int(self.rows.min())
        return left, top, int(self.columns.max()) - left + 1, int(self.rows.max()) - top + 1

    def mask(self, size_px: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
        """Return True at the region's pixels, in an image of (height, width)."""
        mask = np.zeros(size_px, dtype=bool)
        mask[self.rows, self.columns] = True
        return mask


def find_regions(label_map: Int[np.ndarray, "H W"]) -> list[Region]:
    """Find the connected regions, by label, then in reading order.

    Args:
        label_map: 0 = none, k = the k-th label.
    """
    starts, region_of_run = connect_runs(label_map)
    regions = np.repeat(region_of_run, np.diff(starts, append=label_map.size))
    pixels = np.flatnonzero(label_map)
    labels, regions = label_map.ravel()[pixels], regions[pixels]
    order = np.lexsort((regions, labels))
    pixels, labels, regions = pixels[order], labels[order], regions[order]
    cuts = np.flatnonzero(np.diff(regions)) + 1
    return [
        Region(int(label_map.flat[group[0]]), *np.divmod(group, label_map.shape[1]))
        for group in np.split(pixels, cuts)
        if len(group)
    ]


def connect_runs(
    label_map: Int[np.ndarray, "H W"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Find the connected regions in terms of runs: equal pixels in a row.

    Args:
        label_map: Any whole numbers; each is a label here.

    Returns:
        Where in the flattened map each run starts, and the number of its region, which is that of
        the region's first run.

    Of two touching runs the higher number of their regions takes the lower, until all agree.
    """
    starts = np.ones(label_map.shape, dtype=bool)
    np.not_equal(label_map[:, 1:], label_map[:, :-1], out=starts[:, 1:])
    run = np.cumsum(starts.ravel()).reshape(label_map.shape) - 1
    touches = (label_map[1:] == label_map[:-1]) & (starts[1:] | starts[:-1])
    upper, lower = run[:-1][touches], run[1:][touches]
    starts = np.flatnonzero(starts)
    region = np.arange(len(starts))
    while len(upper):
        one, other = region[upper], region[lower]
        np.minimum.at(region, np.maximum(one, other), np.minimum(one, other))
        while (region != region[region]).any():
            region = region[region]
        differs = region[upper] != region[lower]
        upper, lower = upper[differs], lower[differs]
    return starts, region


def run_lengths(region: Region, size_px: tuple[int, int]) -> list[int]:
    """Lengths of runs of 0 and 1, column by column from 0 on: the order that COCO counts in."""
    height, width = size_px
    places = np.sort(region.columns.astype(np.int64) * height + region.rows)
    breaks = np.flatnonzero(np.diff(places) > 1)
    begins = places[np.concatenate([[0], breaks + 1])]
    ends = places[np.concatenate([breaks, [len(places) - 1]])] + 1
    edges = np.stack([begins, ends], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    return counts[: len(counts) - (counts[-1] == 0)].tolist()


def outline(region: Region) -> list[Ring]:
    """Trace the borders of a region along the sides of its pixels: around it, and its holes."""
    inside = set(zip(region.columns.tolist(), region.rows.tolist(), strict=True))
    onward: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for x, y in inside:
        if (x, y - 1) not in inside:
            onward[x, y].append((x + 1, y))
        if (x + 1, y) not in inside:
            onward[x + 1, y].append((x + 1, y + 1))
        if (x, y + 1) not in inside:
            onward[x + 1, y + 1].append((x, y + 1))
        if (x - 1, y) not in inside:
            onward[x, y + 1].append((x, y))
    rings = []
    for start in sorted(onward):
        while onward[start]:
            ring, point = [start], onward[start].pop()
            while point != start:
                ring.append(point)
                point = onward[point].pop()
            rings.append(_without_straight_corners(ring))
    return rings


def polygon(region: Region) -> list[int]:
    """One closed polygon x, y, x, y, ... of a region, holes included.

    From its first corner it goes to each hole and comes back on the same line, so that by the
    even-odd rule it holds exactly the region's pixels.
    """
    first, *holes = outline(region)
    points = list(first)
    for ring in holes:
        points += [first[0], *ring, ring[0]]
    return [value for point in points for value in point]


def _without_straight_corners(ring: Ring) -> Ring:
    around = zip(ring[-1:] + ring[:-1], ring, ring[1:] + ring[:1], strict=True)
    return [(x, y) for (x0, y0), (x, y), (x1, y1) in around if not (x0 == x == x1 or y0 == y == y1)]
