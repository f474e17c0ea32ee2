"""Facts about this machine that decide whether and how fast pacl runs, as data.

Nothing here is printed, downloaded or changed: the command line turns the rows into a table. A
package is asked for its version by its metadata, and no other part of pacl is imported, so that a
broken installation is reported instead of breaking the report.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

Status = Literal["ok", "warn", "fail"]

_CORE = (
    "torch",
    "transformers",
    "tokenizers",
    "ftfy",
    "numpy",
    "pillow",
    "safetensors",
    "huggingface_hub",
    "jaxtyping",
    "tyro",
    "rich",
)
_PACKAGE = Path(__file__).resolve().parents[1]
# Within an installed package; in a checkout of the repository.
_EMBEDDED = (_PACKAGE / "models" / "storybook", _PACKAGE.parents[1] / "models" / "storybook")
_IMPORT_LIMIT_S = 120


@dataclass(frozen=True)
class Fact:
    """One row of the report.

    Attributes:
        name: What was looked at, such as ``"torch"``.
        status: ``"ok"``; ``"warn"``: pacl runs, with a limit named; ``"fail"``: it cannot run.
        value: What was found, in one line.
        fix: What to do; empty where nothing needs doing.
    """

    name: str
    status: Status
    value: str
    fix: str = ""


def examine() -> list[Fact]:
    """Look at the whole environment.

    Returns:
        One row per fact, in a fixed order: Python, packages, processor, accelerator, bfloat16,
        torchvision, the embedded model, the hub. Takes as long as importing torch does.
    """
    return [
        _python(),
        *_packages(),
        *_hardware(),
        _torchvision(),
        _embedded_model(),
        _hub(),
    ]


def _python() -> Fact:
    value = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Fact("python", "ok", value)


def _packages() -> Iterator[Fact]:
    for name in _CORE:
        version = _version(name)
        if version is None:
            yield Fact(name, "fail", "not installed", f"pip install {name}")
        else:
            yield Fact(name, "ok", version)


def _hardware() -> Iterator[Fact]:
    try:
        import torch
    except (ImportError, OSError) as problem:
        yield Fact("torch import", "fail", _last_line(str(problem)), "reinstall torch")
        return

    vectors = torch.backends.cpu.get_cpu_capability()
    units = [unit for unit in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(unit)]
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    yield Fact("cpu", "ok", ", ".join([cores, vectors, *units]))

    if torch.cuda.is_available():
        memory_gib = torch.cuda.get_device_properties(0).total_memory / 2**30
        yield Fact("gpu", "ok", f"{torch.cuda.get_device_name(0)}, {memory_gib:.0f} GiB")
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    elif torch.backends.mps.is_available():
        yield Fact("gpu", "ok", "Apple (mps)")
        has_bf16 = False
    else:
        yield Fact("gpu", "ok", "none; everything runs on the processor")
        has_bf16 = bool(units)
    yield Fact("bfloat16", "ok", "in hardware" if has_bf16 else "not in hardware; float32 is used")


def _torchvision() -> Fact:
    """A torchvision built for another torch breaks every package that imports it.

    It is imported in a process of its own: a failed import leaves half-registered operators behind.
    """
    version = _version("torchvision")
    if version is None and _version("timm") is None:
        return Fact("torchvision", "ok", "not installed (pacl does not use it)")
    if version is None:
        return Fact(
            "torchvision",
            "warn",
            "not installed, and timm needs it: open_clip's towers of timm do not load",
            "pip install --no-deps torchvision  (one for another torch will do)",
        )
    child = subprocess.run(
        [sys.executable, "-c", "import torchvision"],
        capture_output=True,
        text=True,
        timeout=_IMPORT_LIMIT_S,
        check=False,
    )
    if child.returncode == 0:
        return Fact("torchvision", "ok", version)
    return Fact(
        "torchvision",
        "warn",
        f"{version} does not fit torch {_version('torch')}: {_last_line(child.stderr)}",
        "pacl works beside it, timm's towers of open_clip included, other packages may not: "
        "pip uninstall -y torchvision, or install the build that was made for this torch",
    )


def _embedded_model() -> Fact:
    for directory in _EMBEDDED:
        if (directory / "config.json").is_file():
            return Fact("storybook model", "ok", str(directory))
    return Fact("storybook model", "warn", "not found", "reinstall pacl; it ships with the package")


def _hub() -> Fact:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return Fact("model hub", "ok", f"offline by HF_HUB_OFFLINE; local models and {home} only")
    return Fact("model hub", "ok", f"allowed, not tried; downloads go to {home}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"
