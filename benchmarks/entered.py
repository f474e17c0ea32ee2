"""Count the source files that a command enters: how many a reader has to open to follow it.

A file is entered when a function or method of it runs; what importing a module runs (its body, its
class bodies, its decorators) does not count. Each case runs in a process of its own, on drawn
images and with the small model that comes with the package:

    evaluate   `pacl evaluate FOLDER`, from the words of the command line to the tables
    segment    one image through `Model.segment`, with a model that is loaded and warm
    train      `pacl.training.train.train`: the set-up of a run, its steps and its checkpoint

    python benchmarks/entered.py            # the three counts
    python benchmarks/entered.py --files    # and the files, each with its functions
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
from PIL import Image

CASES = ("evaluate", "segment", "train")
LABELS = "sky,grass,house"
_CO_OPTIMIZED = 0x1  # set on functions, and not on the bodies of modules and classes


class Entered:
    """Notes which functions of the package run while it is on.

    Args:
        package: The folder of the package's source.

    Attributes:
        functions: Names of the functions entered, by file.
    """

    def __init__(self, package: Path) -> None:
        self.functions: dict[str, set[str]] = {}
        self._package = str(package)
        self._seen: set[CodeType] = set()

    def __enter__(self) -> Entered:
        import threading

        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        import threading

        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or code in self._seen:
            return
        self._seen.add(code)
        if not code.co_flags & _CO_OPTIMIZED or _is_importing(frame):
            return
        if code.co_filename.startswith(self._package):
            name = code.co_filename[len(self._package) + 1 :]
            self.functions.setdefault(name, set()).add(code.co_name)


def _is_importing(frame: FrameType) -> bool:
    """Whether a function runs because a module is being imported."""
    above = frame.f_back
    while above is not None:
        if above.f_code.co_name == "<module>" and above.f_globals.get("__name__") != "__main__":
            return True
        above = above.f_back
    return False


def draw_folder(root: Path, *, n_images: int = 3, size_px: int = 64) -> None:
    """Write images, masks, class names and captions."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    (root / "classes.txt").write_text(LABELS.replace(",", "\n"))
    with (root / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "caption"))
        for number in range(n_images):
            pixels = rng.integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
            mask = rng.integers(0, 3, (size_px, size_px), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"{number}.png")
            Image.fromarray(mask).save(root / "masks" / f"{number}.png")
            writer.writerow((f"images/{number}.png", f"a house {number}"))


def enter_evaluate(root: Path) -> Entered:
    """Follow `pacl evaluate FOLDER`."""
    import pacl
    from pacl.cli import main

    words = ["evaluate", str(root), "--output", str(root / "out"), "--device", "cpu"]
    said = StringIO()
    entered = Entered(Path(pacl.__file__).parent)
    with entered, redirect_stdout(said), redirect_stderr(said):
        code = main(words)
    if code:
        raise SystemExit(said.getvalue())
    return entered


def enter_segment(root: Path) -> Entered:
    """Follow one image through `Model.segment`."""
    import pacl

    model = pacl.load("storybook", device="cpu")
    path = root / "images" / "0.png"
    model.segment(path, LABELS)
    with Entered(Path(pacl.__file__).parent) as entered:
        model.segment(path, "sky,sea,house")
    return entered


def enter_train(root: Path) -> Entered:
    """Follow a training run of one step."""
    import pacl
    from pacl.training.config import TrainConfig
    from pacl.training.train import train

    config = TrainConfig(
        data=root / "captions.csv", output=root / "run", steps=1, batch_size=2, device="cpu"
    )
    with Entered(Path(pacl.__file__).parent) as entered:
        train(config)
    return entered


_ENTER: dict[str, Callable[[Path], Entered]] = {
    "evaluate": enter_evaluate,
    "segment": enter_segment,
    "train": enter_train,
}


def main() -> None:
    """Run every case in a process of its own, or one case in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", action="store_true", help="name the files and functions too")
    parser.add_argument("--case", choices=CASES, help="only this case, in this process")
    options = parser.parse_args()
    if options.case is None:
        flags = ["--files"] if options.files else []
        for case in CASES:
            subprocess.run([sys.executable, __file__, "--case", case, *flags], check=True)
        return
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "drawn"
        draw_folder(root)
        entered = _ENTER[options.case](root)
    print(f"{options.case:<9} {len(entered.functions):3} files entered")
    if options.files:
        for name in sorted(entered.functions):
            print(f"    {name}: {', '.join(sorted(entered.functions[name]))}")


if __name__ == "__main__":
    main()
