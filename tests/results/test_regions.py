"""Regions against a flood fill, run lengths and polygons against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pacl.results.regions import find_regions, polygon, run_lengths

coco = pytest.importorskip("pycocotools.mask")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own
label_maps = arrays(
    np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)
)


def flood(label_map: np.ndarray) -> set[tuple[int, frozenset[tuple[int, int]]]]:
    """The regions, pixel by pixel."""
    left = {tuple(map(int, place)) for place in np.argwhere(label_map)}
    found = set()
    while left:
        todo = [left.pop()]
        number, region = int(label_map[todo[0]]), set(todo)
        while todo:
            y, x = todo.pop()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left and label_map[near] == number:
                    left.remove(near)
                    region.add(near)
                    todo.append(near)
        found.add((number, frozenset(region)))
    return found


@given(label_maps)
def test_regions_are_those_of_a_flood_fill(label_map: np.ndarray) -> None:
    regions = find_regions(label_map)
    found = {
        (r.number, frozenset(zip(r.rows.tolist(), r.columns.tolist(), strict=True)))
        for r in regions
    }
    assert found == flood(label_map)
    assert len(regions) == len(found)
    assert [r.number for r in regions] == sorted(r.number for r in regions)


@given(label_maps)
def test_runs_and_polygons_are_the_mask(label_map: np.ndarray) -> None:
    height, width = label_map.shape
    for region in find_regions(label_map):
        mask = region.mask((height, width))
        encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        lengths = {"size": [height, width], "counts": run_lengths(region, (height, width))}
        assert coco.frPyObjects(lengths, height, width) == encoded
        assert region.area == coco.area(encoded)
        assert list(region.bbox) == coco.toBbox(encoded).tolist()
        [drawn] = coco.frPyObjects([polygon(region)], height, width)
        assert np.array_equal(coco.decode(drawn), mask)
