"""The folder that pacl segment fills: one name per image, and which images are done."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pacl.data.sources import Source
from pacl.errors import InputError
from pacl.results.segmentation import Failure, Segmentation
from pacl.results.writers import Writers
from pacl.results.writers.parts import PARTS
from pacl.runtime.files import read_json_object, write_atomically

SETTINGS, INDEX, FAILURES = "run.json", "pictures.jsonl", "failures.csv"

_SHARED_ENDING = "_overlay"
"""What a file of one format adds to the stem before the ending that another format has, too."""


class OutputFolder:
    """Results of one model with one set of labels.

    The index holds a line per finished image, written after its files, so that an interrupted
    run resumes where it stopped. Two images of the same name in different folders get different
    files, and keep them in later runs.

    Attributes:
        n_skipped: Images that `iter_todo` has left out so far, because they are done.

    Args:
        directory: Made with the first file.
        formats: What every image is saved as, names of `pacl.results.FORMATS`.
        shard: Which of how many processes this is, from 0: they share the folder.

    Raises:
        InputError: A format is unknown.
    """

    def __init__(
        self, directory: Path, formats: Sequence[str], *, shard: tuple[int, int] = (0, 1)
    ) -> None:
        self.directory = directory
        self._shard = shard
        self.n_skipped = 0
        self._writers = Writers(directory, formats)
        self._stem_of = dict(_iter_index(directory / INDEX))
        self._done = set(self._stem_of)
        self._taken = {stem.casefold() for stem in self._stem_of.values()}

    def claim(
        self, settings: dict[str, Any], *, may_replace: bool, holds_results: bool = False
    ) -> None:
        """Note what the results are made with.

        Args:
            settings: All that decides a result, see `pacl.api.Model.settings`. A folder of an
                earlier pacl has no "scoring", and the others decide.
            may_replace: Whether results of other settings may be overwritten.
            holds_results: Whether results lie there that the index does not list yet.

        Raises:
            InputError: The folder holds results made with something else, which must not be
                taken for these; or a format cannot hold such labels.
        """
        content = json.dumps(settings, indent=1, ensure_ascii=False)
        saved, wanted = read_json_object(self.directory / SETTINGS), json.loads(content)
        saved.setdefault("scoring", wanted.get("scoring"))
        keys = dict.fromkeys([*wanted, *saved])
        is_filled = bool(self._done) or holds_results
        differing = [key for key in keys if is_filled and saved.get(key) != wanted.get(key)]
        if differing and not may_replace:
            raise InputError(
                f"{self.directory} holds results of other settings: {', '.join(differing)}",
                fix="choose another --output, or replace them: --overwrite",
            )
        if differing:
            self._stem_of, self._done, self._taken = {}, set(), set()
            shutil.rmtree(self.directory / PARTS, ignore_errors=True)
        self._mend_index(is_alone=self._shard[1] == 1 or bool(differing))
        write_atomically(self.directory / SETTINGS, content.encode())
        self._writers.open(list(settings.get("labels", ())))

    def has(self, source: Source) -> bool:
        """Return whether an image is done, in all the formats.

        Its files get their names now. So several processes that look at all sources, in one
        order, agree on the names, whoever segments which.
        """
        has_files = self.has_files(source.name)
        return _key(source.name) in self._done and has_files

    def has_files(self, name: str) -> bool:
        """Return whether a source's files are there, in all the formats."""
        marks = self._writers.marks(self.stem(name))
        return all(path.exists() for path in marks.values())

    def iter_todo(
        self, sources: Iterable[Source], *, again: bool = False, needs_frames: bool = False
    ) -> Iterator[Source]:
        """Yield this process's share of some sources, less what is done.

        Args:
            sources: The same, in the same order, in all processes.
            again: Whether to do again what is done.
            needs_frames: Whether a video's frames are needed to segment those after them, so that
                none is left out.
        """
        number, n_shards = self._shard
        for k, source in enumerate(sources):
            is_done = self.has(source) and not again
            if k % n_shards != number:
                continue
            if is_done and not (needs_frames and source.sequence):
                self.n_skipped += 1
                continue
            yield source

    def count_todo(self, n_images: int, n_tried: int) -> int:
        """Return how many of some images this process has to do, of which it has tried some."""
        return max(-(-n_images // self._shard[1]) - self.n_skipped, n_tried)

    def stem(self, name: str) -> str:
        """Return the beginning of a source's file names, the same in every run."""
        return self._choose_stem(_key(name))

    def note_done(self, names: Iterable[str]) -> None:
        """Note images whose files others have written, under the stems that `stem` returned."""
        keys = [key for key in dict.fromkeys(map(_key, names)) if key not in self._done]
        with (self.directory / INDEX).open("a", encoding="utf-8") as file:
            file.writelines(_index_line(key, self._choose_stem(key)) for key in keys)
        self._done.update(keys)

    def save(self, found: Segmentation, name: str) -> dict[str, Path]:
        """Write an image's results, note that it is done, and return the files by format.

        Args:
            found: The results.
            name: The source's.
        """
        key = _key(name)
        stem = self._choose_stem(key)
        files = self._writers.add(found, stem)
        if key not in self._done:
            with (self.directory / INDEX).open("a", encoding="utf-8") as file:
                file.write(_index_line(key, stem))
            self._done.add(key)
        return files

    def close(self, failures: Sequence[Failure]) -> Path | None:
        """Finish the files that stand for the whole folder: of all runs and processes.

        Args:
            failures: Images of this run without a result.

        Returns:
            The table of failures; None, and no file is left, where nothing failed.
        """
        n_bytes = -1
        while self._index_size() != n_bytes:  # another process has finished images meanwhile
            n_bytes = self._index_size()
            self._writers.close()
        number, n_shards = self._shard
        path = self.directory / FAILURES
        if n_shards > 1:
            path = path.with_stem(f"{path.stem}.{number}-of-{n_shards}")
        if not failures:
            path.unlink(missing_ok=True)
            return None
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(("file_name", "error"))
        writer.writerows((each.source, each.error) for each in failures)
        write_atomically(path, text.getvalue().encode())
        return path

    def _index_size(self) -> int:
        path = self.directory / INDEX
        return path.stat().st_size if path.is_file() else 0

    def _mend_index(self, *, is_alone: bool) -> None:
        """Write the index without a line that was cut off; beside other processes only end it."""
        path = self.directory / INDEX
        if is_alone:
            lines = [_index_line(key, self._stem_of[key]) for key in self._stem_of]
            write_atomically(path, "".join(lines).encode())
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(max(0, file.tell() - 1))
            if file.read() not in (b"", b"\n"):
                file.write(b"\n")

    def _choose_stem(self, key: str) -> str:
        if key not in self._stem_of:
            stem = next(stem for stem in _iter_stems(Path(key)) if self._is_free(stem.casefold()))
            self._stem_of[key] = stem
            self._taken.add(stem.casefold())
        return self._stem_of[key]

    def _is_free(self, stem: str) -> bool:
        """Whether no file of this stem is another image's, alike on systems that ignore case."""
        near = {stem, stem + _SHARED_ENDING, stem.removesuffix(_SHARED_ENDING)}
        return not near & self._taken


def _iter_stems(path: Path) -> Iterator[str]:
    """The image's name; with its folder's, where another image has it; then numbered.

    Both are cut and cleaned, since addresses may be long and hold signs that files may not.
    """
    name, folder = _clean(path.stem, n_bytes=160), _clean(path.parent.name, n_bytes=60)
    yield name
    number, stem = 1, f"{folder}_{name}"
    while True:
        yield stem if number == 1 else f"{stem}_{number}"
        number += 1


def _clean(name: str, *, n_bytes: int) -> str:
    cut = name.encode()[:n_bytes].decode(errors="ignore")
    return re.sub(r'[<>:"|?*\\\x00-\x1f]', "_", cut)


def _key(name: str) -> str:
    """A file, or what lies within one, by its full path, wherever pacl is started."""
    path = Path(name)
    is_file = "://" not in name and (path.exists() or any(p.is_file() for p in path.parents))
    return str(path.resolve()) if is_file else name


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
