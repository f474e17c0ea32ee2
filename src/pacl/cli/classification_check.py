"""pacl data check for classification sets: what is there against what is expected."""

from __future__ import annotations

import shlex
from pathlib import Path

from pacl.cli.exit_codes import DONE, WRONG_INPUT
from pacl.cli.talk import result, say, table
from pacl.errors import InputError

N_OPENED = 100


def check_classification(name: str, root: Path) -> int:
    """Print what there is of a classification set; 2 where some of its pictures cannot be read.

    Args:
        name: Of the set.
        root: The folder that holds it.

    Raises:
        InputError: It is not there; says what to download.
        EnvironmentProblem: Its lists are MATLAB files, and scipy is not installed.
    """
    import numpy as np

    from pacl.benchmarks import NAMES
    from pacl.benchmarks.classification import CLASSIFICATION_NAMES, find_classification

    if name not in CLASSIFICATION_NAMES:
        raise InputError(
            f"no benchmark called {name!r}",
            why="--root goes with the name of one",
            fix=f"choose one of: {', '.join((*NAMES, *CLASSIFICATION_NAMES))}",
        )
    benchmark = find_classification(name)
    data = benchmark.read(root)
    n_classes = len(data.labels)
    n_test = np.bincount(data.test.targets, minlength=n_classes)
    n_train = np.zeros_like(n_test)
    if data.train is not None:
        n_train = np.bincount(data.train.targets, minlength=n_classes)
    expected = "" if benchmark.n_images is None else f", {benchmark.n_images:,} expected"
    result(f"{name}: {len(data.test):,} images of {benchmark.title}{expected}")
    rows = [
        [label, f"{test:,}", f"{train:,}"]
        for label, test, train in zip(data.labels.names, n_test, n_train, strict=True)
    ]
    result(table(["class", "test", "train"], rows))
    for warning in benchmark.warnings(data):
        say(f"warning: {warning}")
    n_opened = min(N_OPENED, len(data.test))
    for k in range(n_opened):
        try:
            data.test.pictures.open(k * len(data.test) // n_opened)
        except InputError as error:
            say(f"error: {error}")
            return WRONG_INPUT
    say(f"next: pacl evaluate {name} --root {shlex.quote(str(root))}")
    return DONE
