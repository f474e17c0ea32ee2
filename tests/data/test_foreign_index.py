"""Indices that other tools wrote are taken where they agree with the tar."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from pacl.data import tar_index
from pacl.data.tar_index import build_index
from tar_files import png, write_tar

MEMBERS = [
    part
    for k in range(40)
    for part in ((f"{k:03d}.png", png(k)), (f"{k:03d}.txt", b"a house " * (k + 1)))
]


def found_by_tarfile(path: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return tar.getmembers()


def write_webshart(path: Path, size: str = "length") -> None:
    files = {m.name: {"offset": m.offset_data, size: m.size} for m in found_by_tarfile(path)}
    content = {"path": path.name, "filesize": path.stat().st_size, "files": files}
    path.with_suffix(".json").write_text(json.dumps(content))


def write_hfutils(path: Path) -> None:
    write_webshart(path, "size")


def write_dali(path: Path) -> None:
    by_key: dict[str, list[str]] = {}
    for m in found_by_tarfile(path):
        stem, _, suffix = m.name.partition(".")
        by_key.setdefault(stem, []).append(f"{suffix} {m.offset_data} {m.size} {m.name}")
    lines = [f"v1.2 {len(by_key)}", *(" ".join(parts) for parts in by_key.values())]
    path.with_suffix(".idx").write_text("\n".join(lines) + "\n")


WRITERS = {"webshart": write_webshart, "hfutils": write_hfutils, "DALI": write_dali}


def forbid_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_index, "iter_members", None)


@pytest.mark.parametrize("tool", WRITERS)
def test_a_foreign_index_gives_the_index_of_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    path = write_tar(tmp_path / "a.tar", MEMBERS)
    scanned = build_index(path)
    expected = scanned.samples().copy()
    WRITERS[tool](path)
    forbid_scans(monkeypatch)
    taken = build_index(path)
    assert taken == scanned
    assert (taken.samples() == expected).all()


@pytest.mark.parametrize("tool", WRITERS)
@pytest.mark.parametrize("change", ["longer", "shorter", "renamed", "other sizes", "a member less"])
def test_an_index_of_another_state_of_the_tar_is_passed_over(
    tmp_path: Path, tool: str, change: str
) -> None:
    path = write_tar(tmp_path / "a.tar", MEMBERS)
    WRITERS[tool](path)
    members = {
        "longer": [*MEMBERS, ("x.png", png(1)), ("x.txt", b"x")],
        "shorter": MEMBERS[:-2],
        "renamed": [("y.png", png(0)), *MEMBERS[1:]],
        "other sizes": [(name, content + bytes(600)) for name, content in MEMBERS],
        "a member less": MEMBERS,
    }[change]
    write_tar(path, members)
    if change == "a member less":
        index = next(p for p in tmp_path.iterdir() if p.suffix != ".tar")
        text = index.read_text()
        content = json.loads(text) if index.suffix == ".json" else None
        if content is not None:
            del content["files"]["007.txt"]
            index.write_text(json.dumps(content))
        else:
            lines = text.splitlines(keepends=True)
            index.write_text("".join(lines[:8] + lines[9:]))
    assert build_index(path).n_samples == len(members) // 2 - (change == "renamed")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"files": 3}', "v1.1 1\njpg 512 3", "v1.2 1\na b"]
)
@pytest.mark.parametrize("suffix", [".json", ".idx"])
def test_what_is_no_index_is_passed_over(tmp_path: Path, content: str, suffix: str) -> None:
    path = write_tar(tmp_path / "a.tar", MEMBERS)
    path.with_suffix(suffix).write_text(content)
    assert build_index(path).n_samples == 40
