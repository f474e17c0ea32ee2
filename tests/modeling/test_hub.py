"""A trained embedder goes to the hub and comes back, by the hub's own client over a socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hub_server import TOKEN, Hub, serving
from pacl.api import Model, load
from pacl.errors import EnvironmentProblem, InputError
from pacl.modeling import card as cards
from pacl.modeling import hub as hub_side
from pacl.modeling.card import Card
from pacl.modeling.pacl import Pacl

CARD = Card(licence="apache-2.0", data="2,800 drawn scenes with captions.")


def in_process_with_a_hub(code: str, hub: Hub, cache: Path, *, token: str = TOKEN) -> str:
    """Run code whose hub is the stand-in; offline mode of this process does not reach it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(cache), "HF_TOKEN": token}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert child.returncode == 0, f"{child.stderr}\n{hub.requests}"
    return child.stdout.strip()


PUSH = """
import pacl
from pacl.modeling.card import Card
from pathlib import Path
data = "2,800 drawn scenes with captions."
card = Card(licence="apache-2.0", data=data, scores=[Path({scores!r})])
model = pacl.load("storybook").pacl
print(model.push_to_hub("me/pacl-scenes", card=card, private=True))
"""


@pytest.mark.slow
def test_round_trip_over_a_socket(tmp_path: Path, storybook_model: Path) -> None:
    scores = tmp_path / "scores.json"
    record = {"benchmark": "storybook", "n_images": 90, "protocol": {"stride": 4}}
    scores.write_text(json.dumps(record | {"rows": {"PACL": {"miou": 0.531, "n": 3}}}))
    with serving() as hub:
        address = in_process_with_a_hub(PUSH.format(scores=str(scores)), hub, tmp_path / "a")
        assert address.startswith(f"{hub.address}/me/pacl-scenes/commit/")
        stored = hub.repositories["me/pacl-scenes"]
        assert set(stored) == {"README.md", "config.json", "embedder.safetensors", "words.txt"}
        load_it = (
            "import pacl; model = pacl.load('me/pacl-scenes', device='cpu'); "
            "print(model.fingerprint)"
        )
        found = in_process_with_a_hub(load_it, hub, tmp_path / "b")
    assert found == load(storybook_model, device="cpu").fingerprint
    assert (
        stored["embedder.safetensors"]
        == (storybook_model / "pacl" / "embedder.safetensors").read_bytes()
    )
    _, metadata, text = stored["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(metadata)["pipeline_tag"] == "image-segmentation"
    assert yaml.safe_load(metadata)["license"] == "apache-2.0"
    for words in (
        "| PACL | miou | 0.5310 |",
        '`{"stride": 4}`',
        "2,800 drawn",
        "pacl train --data",
    ):
        assert words in text


@pytest.mark.slow
def test_a_refusal_is_named(tmp_path: Path, storybook_model: Path) -> None:
    code = PUSH.format(scores="").replace(", scores=[Path('')]", "")
    code = code.replace("print(model", "try: model").replace("True))", "True)")
    code += "except pacl.InputError as error: print(error)\n"
    with serving() as hub:
        found = in_process_with_a_hub(code, hub, tmp_path, token="hf_wrong")
        assert hub.repositories == {}
    assert found.startswith("the hub refuses to take me/pacl-scenes")
    assert "fix: hf auth login" in found


def test_offline_says_so(storybook_model: Path) -> None:
    model = load(storybook_model, device="cpu").pacl
    with pytest.raises(EnvironmentProblem, match="the hub is switched off"):
        model.push_to_hub("me/pacl-scenes", card=CARD)
    with pytest.raises(EnvironmentProblem, match="could not be downloaded"):
        Pacl.from_pretrained("me/pacl-scenes")


def test_a_path_of_this_machine_is_not_uploaded(model: Model, tmp_path: Path, clip: Path) -> None:
    with pytest.raises(InputError, match="the encoder is named by a path"):
        model.pacl.push_to_hub("me/pacl", card=CARD)
    model.pacl.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["training"] = {"config": {"data": str(clip), "output": "/home/me/runs", "lr": 0.1}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shared = hub_side.make_shareable(tmp_path, {"encoder": "openai/clip-vit-base-patch16"})
    assert shared["encoder"] == "openai/clip-vit-base-patch16"
    assert shared["training"]["config"] == {"data": clip.name, "output": "runs", "lr": 0.1}
    text = cards.write_card(shared, CARD, "me/pacl", "PACL.")
    assert "pacl train --data clip --output runs --lr 0.1" in text
    assert str(clip.parent) not in text + (tmp_path / "config.json").read_text()
