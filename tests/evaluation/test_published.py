"""published.csv holds figures that can be true, each traced to a source."""

from __future__ import annotations

from statistics import mean

import pytest

from pacl.datasets.segmentation import NAMES
from pacl.evaluation.published import PUBLISHED


def test_every_row_names_its_source_and_protocol() -> None:
    assert len(PUBLISHED) == 37
    for row in PUBLISHED:
        assert row.method
        assert row.backbone
        assert row.source
        assert row.protocol
        assert row.miou or row.mean


def test_figures_are_percent_of_known_benchmarks() -> None:
    for row in PUBLISHED:
        assert set(row.miou) <= set(NAMES)
        assert all(1 < figure < 100 for figure in row.miou.values()), row


def test_means_are_those_of_the_row() -> None:
    """A wrong digit shows here. Sources round, and one mean differs from its row by a tenth."""
    complete = [row for row in PUBLISHED if len(row.miou) == 8 and row.mean]
    assert len(complete) >= 15
    for row in complete:
        assert mean(row.miou.values()) == pytest.approx(row.mean, abs=0.16), row
