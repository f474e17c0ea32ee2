"""Indices that other tools left beside a tar: they save reading its headers one by one.

| file | written by |
|---|---|
| NAME.json | webshart, hfutils: `{"files": {member: {"offset": ..., "length" or "size": ...}}}` |
| NAME.idx | DALI's wds2idx, version 1.2: a line per sample of suffix, offset, size and name |

Energon's NAME.tar.idx holds where samples begin, but neither names nor sizes: the headers are read.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from pacl.data.tar_members import Member, read_plain

_N_COMPARED = 16
"""Members whose header is compared with the index, spread over the tar."""


def read_foreign_index(path: Path, tar_size: int) -> list[Member] | None:
    """Return the members of a tar, by place, from a foreign index that agrees with it.

    Args:
        path: The tar.
        tar_size: Its size in bytes.

    Returns:
        None where there is no such index, or it belongs to another state of the tar: a member is
        missing from it, or a header says something else.
    """
    for suffix, read in ((".json", _read_json), (".idx", _read_dali)):
        try:
            members = sorted(read(path.with_suffix(suffix).read_text()), key=lambda each: each.at)
            if members and _agrees(path, members, tar_size):
                return members
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return None


def _read_json(text: str) -> list[Member]:
    files = json.loads(text)["files"]
    sizes = {name: each["length" if "length" in each else "size"] for name, each in files.items()}
    return [Member(name, int(files[name]["offset"]), int(size)) for name, size in sizes.items()]


def _read_dali(text: str) -> list[Member]:
    version, *lines = text.splitlines()
    if not version.startswith("v1.2 "):
        raise ValueError(version)
    members = []
    for line in lines:
        words = iter(line.split(" "))
        parts = zip(words, words, words, words, strict=True)
        members += [Member(name, int(at), int(size)) for _, at, size, name in parts]
    return members


def _agrees(path: Path, members: list[Member], tar_size: int) -> bool:
    """Return whether no file lies between the members, and some headers are as they should be."""
    step = max(1, len(members) // _N_COMPARED)
    with path.open("rb", buffering=0) as file:

        def header(at: int) -> bytes:
            return os.pread(file.fileno(), 512, at)

        end = 0
        for number, member in enumerate(members):
            if member.at - 512 != end and read_plain(header(end)) is not None:
                return False
            if number % step == 0 or member is members[-1]:
                found = header(member.at - 512)
                plain = read_plain(found)  # None for a name that this header holds in part
                is_other = plain is not None and plain != (member.name, member.size)
                if is_other or found[257:262] != b"ustar":
                    return False
            end = member.end
        return members[-1].at + members[-1].size <= tar_size and not any(header(end))
