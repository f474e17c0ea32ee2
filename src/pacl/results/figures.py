"""Figures for reports: sheets of images and curves (the only file that imports matplotlib)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pacl.errors import EnvironmentProblem
from pacl.results.writers.lettering import LegendEntry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Panel = tuple[str, Image.Image]
"""Title and image."""

_INK = "#26262a"


def draw_sheet(
    rows: Sequence[Sequence[Panel]], path: Path, *, legend: Sequence[LegendEntry] = ()
) -> None:
    """Draw rows of titled images; rows may differ in length.

    Args:
        rows: Images of about the first one's shape.
        path: The image to write.
        legend: Words and their RGB colours, below the rows.

    Raises:
        EnvironmentProblem: The package matplotlib is not installed.
    """
    n_columns = max(map(len, rows))
    first = rows[0][0][1]
    height_in = 1.55 * first.height / first.width + 0.2
    figure = _new_figure(1.55 * n_columns, height_in * len(rows) + 0.3 * bool(legend))
    axes = figure.subplots(len(rows), n_columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, panels in zip(axes, rows, strict=True):
        for axis, (title, image) in zip(row, panels, strict=False):
            axis.imshow(image, interpolation="nearest")
            axis.set_title(title, fontsize=9, color=_INK, pad=3)
    if legend:
        from matplotlib.patches import Patch

        swatches = [
            Patch(color="#{:02x}{:02x}{:02x}".format(*rgb), label=word) for word, rgb in legend
        ]
        figure.legend(
            handles=swatches,
            loc="outside lower center",
            ncols=len(legend),
            frameon=False,
            fontsize=8,
            handlelength=1,
            columnspacing=1,
        )
    figure.savefig(path, dpi=110, facecolor="white")


def draw_curves(metrics_paths: Mapping[str, Path], path: Path) -> None:
    """Draw loss and in-batch retrieval accuracy over the steps of one or several runs.

    Args:
        metrics_paths: Name of each run and its metrics.jsonl.
        path: The image to write.

    Raises:
        EnvironmentProblem: The package matplotlib is not installed.
    """
    figure = _new_figure(8, 3)
    left, right = figure.subplots(1, 2)
    for name, metrics_path in metrics_paths.items():
        text = metrics_path.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        steps = [line["step"] for line in lines]
        left.plot(steps, [line["loss"] for line in lines], label=name)
        right.plot(steps, [line["accuracy_image_to_text"] for line in lines], label=name)
    left.set(xlabel="step", ylabel="loss")
    right.set(xlabel="step", ylabel="in-batch retrieval, image to text")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    left.legend(frameon=False)
    figure.savefig(path, dpi=110, facecolor="white")


def draw_roc(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path) -> None:
    """Draw ROC curves in one square, with the line of chance.

    Args:
        curves: Name of each and its rates: false positive, true positive, from 0 to 1.
        path: The image to write.

    Raises:
        EnvironmentProblem: The package matplotlib is not installed.
    """
    figure = _new_figure(4.4, 4.4)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.7", linestyle=":", label="chance")
    for name, (fpr, tpr) in curves.items():
        axis.plot(fpr, tpr, label=name)
    axis.set(
        xlim=(0, 1),
        ylim=(0, 1.005),
        aspect="equal",
        xlabel="pairs of two classes taken for one",
        ylabel="pairs of one class recognised",
    )
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110, facecolor="white")


def _new_figure(width_in: float, height_in: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentProblem(
            "matplotlib is not installed", why="figures need it", fix="pip install matplotlib"
        ) from error
    return Figure(figsize=(width_in, height_in), layout="constrained")
