"""The folder that pacl segment fills: one name per image, and which images are done."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pacl.data.sources import Source
from pacl.errors import InputError
from pacl.results.segmentation import Failure, Segmentation
from pacl.results.writers import ENDINGS, Writers
from pacl.runtime.files import read_json_object, write_atomically

SETTINGS, INDEX, FAILURES = "run.json", "pictures.jsonl", "failures.csv"


class OutputFolder:
    """Results of one model with one set of labels.

    The index holds a line per finished image, written after its files, so that an interrupted
    run resumes where it stopped. Two images of the same name in different folders get different
    files, and keep them in later runs.

    Args:
        directory: Made with the first file.
        formats: What every image is saved as, names of `pacl.results.FORMATS`.

    Raises:
        InputError: A format is unknown.
    """

    def __init__(self, directory: Path, formats: Sequence[str]) -> None:
        self.directory = directory
        self._writers = Writers(directory, formats)
        self._stem_of = dict(_iter_index(directory / INDEX))
        self._owner_of = {
            name: source for source, stem in self._stem_of.items() for name in _file_names(stem)
        }

    def claim(self, settings: dict[str, Any], *, may_replace: bool) -> None:
        """Note what the results are made with.

        Args:
            settings: All that decides a result, see `pacl.api.Model.settings`. A folder of an
                earlier pacl has no "scoring", and the others decide.
            may_replace: Whether results of other settings may be overwritten.

        Raises:
            InputError: The folder holds results made with something else, which must not be
                taken for these.
        """
        content = json.dumps(settings, indent=1, ensure_ascii=False)
        saved, wanted = read_json_object(self.directory / SETTINGS), json.loads(content)
        saved.setdefault("scoring", wanted.get("scoring"))
        differing = [key for key in wanted if self._stem_of and saved.get(key) != wanted[key]]
        if differing and not may_replace:
            raise InputError(
                f"{self.directory} holds results of other settings: {', '.join(differing)}",
                fix="choose another --output, or replace them: --overwrite",
            )
        if differing:
            self._stem_of, self._owner_of = {}, {}
        lines = [_index_line(source, stem) for source, stem in self._stem_of.items()]
        write_atomically(self.directory / INDEX, "".join(lines).encode())
        write_atomically(self.directory / SETTINGS, content.encode())

    def has(self, source: Source) -> bool:
        """Return whether an image is done, in all the formats."""
        stem = self._stem_of.get(_key(source.name))
        return stem is not None and all(
            path.is_file() for path in self._writers.paths(stem).values()
        )

    def save(self, found: Segmentation, source: Source) -> dict[str, Path]:
        """Write an image's results, note that it is done, and return the files by format."""
        key, stem = _key(source.name), self._choose_stem(source.name)
        files = self._writers.add(found, stem)
        if key not in self._stem_of:
            with (self.directory / INDEX).open("a", encoding="utf-8") as file:
                file.write(_index_line(key, stem))
            self._stem_of[key] = stem
            self._owner_of |= dict.fromkeys(_file_names(stem), key)
        return files

    def close(self, failures: Sequence[Failure]) -> Path | None:
        """Finish the files that stand for the whole folder.

        Args:
            failures: Images of this run without a result.

        Returns:
            The table of failures; None, and no file is left, where nothing failed.
        """
        self._writers.close()
        path = self.directory / FAILURES
        if not failures:
            path.unlink(missing_ok=True)
            return None
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(("file_name", "error"))
        writer.writerows((each.source, each.error) for each in failures)
        write_atomically(path, text.getvalue().encode())
        return path

    def _choose_stem(self, name: str) -> str:
        key = _key(name)
        if key in self._stem_of:
            return self._stem_of[key]
        return next(
            stem
            for stem in _iter_stems(Path(key))
            if all(self._owner_of.get(file, key) == key for file in _file_names(stem))
        )


def _iter_stems(path: Path) -> Iterator[str]:
    """The image's name; with its folder's, where another image has it; then numbered."""
    yield path.stem
    number, stem = 1, f"{path.parent.name}_{path.stem}"
    while True:
        yield stem if number == 1 else f"{stem}_{number}"
        number += 1


def _file_names(stem: str) -> list[str]:
    """All that an image's files may be called, alike on systems that ignore case."""
    return [(stem + ending).casefold() for ending in ENDINGS]


def _key(name: str) -> str:
    """A file by its full path, wherever pacl is started; anything else by its name."""
    path = Path(name)
    return str(path.resolve()) if path.exists() else name


def _index_line(source: str, stem: str) -> str:
    return json.dumps({"source": source, "stem": stem}, ensure_ascii=False) + "\n"


def _iter_index(path: Path) -> Iterator[tuple[str, str]]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            content = json.loads(line)
            yield content["source"], content["stem"]
        except (ValueError, KeyError, TypeError):  # the last line of a run that was killed
            continue
