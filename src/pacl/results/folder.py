"""The folder that pacl segment fills: one name per picture, and what is done already."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pacl.errors import InputError
from pacl.results.segmentation import FORMATS, Failure, Segmentation
from pacl.runtime.files import read_json_object, write_atomically

SETTINGS, INDEX, FAILURES = "run.json", "pictures.jsonl", "failures.csv"


class OutputFolder:
    """Results of one model with one set of labels.

    The index holds a line per finished picture, written after its files, so that an interrupted
    run goes on where it stopped. Two pictures of the same name in different folders get
    different files, and keep them in later runs.

    Args:
        directory: Made with the first file.
        formats: What every picture is saved as.
    """

    def __init__(self, directory: Path, formats: Sequence[str]) -> None:
        self.directory = directory
        self.formats = tuple(formats)
        self._stem_of = dict(_iter_index(directory / INDEX))
        self._owner_of = {
            name: source for source, stem in self._stem_of.items() for name in _file_names(stem)
        }

    def claim(self, settings: dict[str, Any], *, may_replace: bool) -> None:
        """Note what the results are made with.

        Args:
            settings: All that decides a result. A folder of an earlier pacl has no "scoring",
                and the others decide.
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

    def has(self, path: Path) -> bool:
        """Whether a picture is done, in all the formats."""
        stem = self._stem_of.get(_key(path))
        return stem is not None and all(
            (self.directory / (stem + FORMATS[name])).is_file() for name in self.formats
        )

    def save(self, found: Segmentation, path: Path) -> dict[str, Path]:
        """Write a picture's results, note that it is done, and give the files."""
        key, stem = _key(path), self._choose_stem(path)
        files = found.save(self.directory, formats=self.formats, stem=stem)
        if key not in self._stem_of:
            with (self.directory / INDEX).open("a", encoding="utf-8") as file:
                file.write(_index_line(key, stem))
            self._stem_of[key] = stem
            self._owner_of |= dict.fromkeys(_file_names(stem), key)
        return files

    def write_failures(self, failures: Sequence[Failure]) -> Path | None:
        """Write what failed in this run; no file is left where nothing did."""
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

    def _choose_stem(self, path: Path) -> str:
        key = _key(path)
        if key in self._stem_of:
            return self._stem_of[key]
        return next(
            stem
            for stem in _iter_stems(Path(key))
            if all(self._owner_of.get(name, key) == key for name in _file_names(stem))
        )


def _iter_stems(path: Path) -> Iterator[str]:
    """The picture's name; with its folder's, where another picture has it; then numbered."""
    yield path.stem
    number, stem = 1, f"{path.parent.name}_{path.stem}"
    while True:
        yield stem if number == 1 else f"{stem}_{number}"
        number += 1


def _file_names(stem: str) -> list[str]:
    """All that a picture's files may be called, alike on systems that ignore case."""
    return [(stem + end).casefold() for end in FORMATS.values()]


def _key(path: Path) -> str:
    return str(path.resolve())


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
