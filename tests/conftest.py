"""What every test shares: no network, one thread, the same examples each time, data paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton: kernels run on the CPU

import hypothesis
import jaxtyping
import pytest
import torch

if TYPE_CHECKING:
    from pacl.api import Model

ROOT = Path(__file__).resolve().parents[1]

hypothesis.settings.register_profile("pacl", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("pacl")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import files that are slow as a whole where none of their tests would run."""
    if config.getoption("markexpr") != "not slow" or collection_path.suffix != ".py":
        return None
    is_slow = re.search(
        r"^pytestmark = \[?pytest\.mark\.slow", collection_path.read_text("utf-8"), re.M
    )
    return True if is_slow else None


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Lets a wrong shape or type through to the function's own check, which is then under test."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def storybook_model() -> Path:
    """The embedded model's directory; skips where it has not been made yet."""
    return _existing(ROOT / "models" / "storybook", "config.json")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photographs beside the repository; skips where there is none."""
    return _existing(ROOT.parent / "shared" / "data", "README.md")


@pytest.fixture(scope="session")
def camvid(shared_data: Path) -> Path:
    """Photographs of streets with masks: images/, masks/."""
    return _existing(shared_data / "camvid", "images")


@pytest.fixture(scope="session")
def flickr_pairs(shared_data: Path) -> Path:
    """Photographs with captions: captions.csv and images/."""
    return _existing(shared_data / "flickr_pairs", "captions.csv")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small random CLIP."""
    from checkpoints import write_clip

    return write_clip(tmp_path_factory.mktemp("checkpoint") / "clip")


@pytest.fixture(scope="module")
def model(clip: Path) -> Model:
    """That CLIP with a random embedder."""
    # Not at the top: what is imported before pytest's plug-ins are set up has no shape checks.
    from pacl.api import Model, load
    from pacl.modeling.embedder import VisionEmbedder
    from pacl.modeling.pacl import Pacl

    encoder = load(clip, device="cpu").pacl.encoder
    torch.manual_seed(0)
    embedder = VisionEmbedder(encoder.width, encoder.joint_width)
    return Model(Pacl(encoder=encoder, embedder=embedder))


def _existing(directory: Path, witness: str) -> Path:
    if not (directory / witness).exists():
        pytest.skip(f"not here: {directory / witness}")
    return directory
