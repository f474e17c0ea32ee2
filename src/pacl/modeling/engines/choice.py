"""The engine that a short measurement finds to be the fastest here, kept in the user's cache."""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pacl.errors import EnvironmentProblem, PaclError
from pacl.runtime.files import write_atomically

ROUNDS = 3
"""Of which each engine's shortest time counts: other programs only ever lengthen one."""
PACKAGES = ("torch", "onnx", "onnxruntime", "openvino")
FILE = "auto.json"

_log = logging.getLogger(__name__)


def machine_key(tower: str, *, device: torch.device, flags: frozenset[str]) -> str:
    """Name what a measurement depends on: the machine, the packages' versions and the tower.

    Args:
        tower: Identifies the tower's weights, kind of tokens and layer.
        device: Where its weights are.
        flags: The CPU's abilities.
    """
    versions: list[str] = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    is_gpu = device.type == "cuda"
    machine = torch.cuda.get_device_name(device) if is_gpu else " ".join(sorted(flags))
    facts = [tower, device.type, machine, str(torch.get_num_threads()), *versions]
    return sha256("\n".join(facts).encode()).hexdigest()[:16]


def fastest(runs: Mapping[str, Callable[[], object]], *, wait: Callable[[], object]) -> str | None:
    """Run each in turn, and again, and return the one of the shortest time.

    Args:
        runs: What to run, by name; one that raises a PaclError does not work here.
        wait: Returns when the device has finished.

    Returns:
        The name; None where none works.
    """
    shortest: dict[str, float] = {}
    refused: set[str] = set()
    for turn in range(1 + ROUNDS):  # the first one builds and warms up
        for name, run in runs.items():
            if name in refused:
                continue
            started_s = time.perf_counter()
            try:
                run()
            except PaclError as error:
                _log.debug("engine %s does not work here: %s", name, error.what)
                refused.add(name)
                continue
            wait()
            seconds = time.perf_counter() - started_s
            if turn > 0:
                shortest[name] = min(seconds, shortest.get(name, seconds))
    return min(shortest, key=lambda name: shortest[name]) if shortest else None


def recall(directory: Path, key: str, names: Sequence[str]) -> str | None:
    """Return what an earlier measurement found, if it is one of the names."""
    found = _read(directory / FILE).get(key)
    return found if found in names else None


def remember(directory: Path, key: str, name: str) -> None:
    """Keep what a measurement found; where the cache cannot be written, it is measured again."""
    known = _read(directory / FILE) | {key: name}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(directory / FILE, json.dumps(known, indent=1).encode())
    except (EnvironmentProblem, OSError) as error:
        _log.debug("auto's choice of engine is not kept: %s", error)


def _read(path: Path) -> dict[str, str]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {str(key): str(name) for key, name in known.items()}
