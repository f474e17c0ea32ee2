"""Files that stand for a whole folder of results, put together from a part per image.

Each part is written with its image's other files. So an interrupt loses nothing: whatever run
closes the folder finds the parts of all, and parts of other labels are removed first.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from pacl.runtime.files import read_json_object, write_atomically

PARTS = ".parts"
"""The folder, within the folder of results, that holds them."""


class Parts:
    """One format's parts.

    Args:
        name: The format.
        ending: End of each part's file name.
    """

    def __init__(self, name: str, ending: str) -> None:
        self._name, self._ending = name, ending
        self._directory = Path()

    def open(self, folder: Path, labels: Sequence[str]) -> None:
        """Begin or continue the parts in a folder of results with these labels."""
        self._directory = folder / PARTS / self._name
        path, content = self._directory / ".labels", {"labels": list(labels)}
        if read_json_object(path) != content:
            shutil.rmtree(self._directory, ignore_errors=True)
            write_atomically(path, json.dumps(content).encode())

    def mark(self, stem: str) -> str:
        """Return the path of an image's part, within the folder of results."""
        return f"{PARTS}/{self._name}/{stem}{self._ending}"

    def write(self, stem: str, content: bytes) -> None:
        """Write an image's part, whole or not at all."""
        write_atomically(self._directory / (stem + self._ending), content)

    def __iter__(self) -> Iterator[tuple[str, Path]]:
        """Yield stem and file of every part, by name."""
        for path in sorted(self._directory.glob(f"*{self._ending}")):
            yield path.name.removesuffix(self._ending), path
