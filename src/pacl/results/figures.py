"""Figures for reports: curves (the only file that imports matplotlib)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pacl.errors import EnvironmentProblem

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
