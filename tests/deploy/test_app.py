"""The demo's service is called over HTTP, by its own client, by ten visitors at once."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from pacl.api import Model, load
from pacl.datasets.storybook import LABELS, draw_scene
from pacl.errors import InputError

if TYPE_CHECKING:
    from gradio_client import Client

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # gradio's own
WORDS = "sky, grass, pine tree"


@pytest.fixture(scope="module")
def storybook(storybook_model: Path) -> Model:
    return load(storybook_model, device="cpu")


@pytest.fixture(scope="module")
def app() -> Any:
    """The demo's module; gradio takes seconds to import, which collecting the tests need not."""
    pytest.importorskip("gradio")
    from pacl.deploy import app

    return app


@pytest.fixture(scope="module")
def address(app: Any, storybook: Model) -> Iterator[str]:
    page = app.build_demo(storybook)
    yield app.serve(page, host="127.0.0.1", port=None, is_blocking=False)
    page.close(verbose=False)
    gc.collect()  # gradio leaves sockets and a loop open, which pytest would report at its end


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    Image.fromarray(draw_scene("test", 3).image).save(path)
    return path


def client(address: str) -> Client:
    from gradio_client import Client

    return Client(address, verbose=False)


def segment(address: str, path: Path, words: str) -> Any:
    from gradio_client import handle_file

    return client(address).predict(handle_file(path), words, api_name="/segment")


def test_service_gives_what_pacl_gives(address: str, scene: Path, storybook: Model) -> None:
    from gradio_client import handle_file

    areas, label_map = segment(address, scene, WORDS)
    expected = storybook.segment(scene, WORDS)
    assert areas == {label: round(area, 4) for label, area in expected.areas.items()}
    assert np.array_equal(np.asarray(Image.open(label_map)), expected.label_map)
    heat = client(address).predict(handle_file(scene), "sky", api_name="/heat_map")
    assert Image.open(heat).size == expected.image.size


def test_without_labels_it_names_what_it_sees(address: str, scene: Path) -> None:
    areas, label_map = segment(address, scene, "")
    assert {"sky", "snow", "pine tree"} <= set(areas)
    counts = np.bincount(np.asarray(Image.open(label_map)).ravel())
    shares = [round(share, 4) for share in counts[1:] / counts.sum()]
    assert shares == list(areas.values())
    assert min(shares) > 0


def test_the_service_is_documented(address: str) -> None:
    endpoints: Any = client(address).view_api(return_format="dict", print_info=False)
    named = endpoints["named_endpoints"]
    assert set(named) == {"/segment", "/heat_map"}
    assert "separated by commas" in named["/segment"]["description"]


def test_what_is_wrong_is_said_without_a_path(address: str, scene: Path, tmp_path: Path) -> None:
    from gradio_client.exceptions import AppError

    renamed = tmp_path / "renamed.jpg"
    renamed.write_text("no image")
    many = ",".join(f"word{k}" for k in range(500))
    for path, words, message in (
        (renamed, "sky", "is not an image"),
        (scene, many, "500 labels are too many: at most 64"),
        (scene, "x" * 99, "a label is too long"),
    ):
        with pytest.raises(AppError, match=message) as caught:
            segment(address, path, words)
        assert str(tmp_path) not in str(caught.value)
        assert "gradio" not in str(caught.value)


def test_a_defect_is_not_shown(
    app: Any, address: str, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradio_client.exceptions import AppError

    def defect(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(app.Demo, "find", defect)
    with pytest.raises(AppError, match="Something went wrong here") as caught:
        segment(address, scene, "sky")
    assert "secret" not in str(caught.value)


def test_a_large_upload_is_refused(address: str, tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(os.urandom(21_000_000))
    with pytest.raises(Exception, match=r"413|exceed|Too Large"):
        segment(address, large, "sky")


def test_a_label_that_names_a_file_is_a_label(address: str, scene: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("password\n")
    name = str(tmp_path / "secret.txt")[-60:]
    assert list(segment(address, scene, name)[0]) == [name]


def test_a_file_of_the_server_is_not_read(address: str, scene: Path) -> None:
    """The client would upload it; so the request is written out."""
    sent = {"path": str(scene), "meta": {"_type": "gradio.FileData"}}
    request = urllib.request.Request(
        f"{address}gradio_api/call/segment",
        json.dumps({"data": [sent, "sky"]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        event = json.load(response)["event_id"]
    with urllib.request.urlopen(f"{address}gradio_api/call/segment/{event}") as response:
        assert response.read().startswith(b"event: error")


def test_page_shows_regions_of_pacl_and_of_clip(app: Any, storybook: Model, scene: Path) -> None:
    demo = app.Demo(storybook, [])
    ours, clip, areas, phrases, _ = demo.show(str(scene), WORDS)
    image, regions = ours.value["image"], ours.value["annotations"]
    assert image
    assert {each["label"] for each in regions} == {k for k, v in areas.items() if v > 0}
    assert clip.value != ours.value
    assert [each[0] for each in phrases.choices] == ["sky", "grass", "pine tree"]


def test_ten_visitors_at_once(address: str, scene: Path, storybook: Model) -> None:
    words = [f"sky, grass, {word}" for word in LABELS[:12] if word not in ("sky", "grass")]
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda each: segment(address, scene, each)[0], words))
    for each, areas in zip(words, found, strict=True):
        expected = storybook.segment(scene, each).areas
        assert areas == {label: round(area, 4) for label, area in expected.items()}


def test_labels_are_split_and_counted(app: Any) -> None:
    assert app.read_words(" sky ,grass\npine  tree,,Sky") == ["Sky", "grass", "pine tree"]
    with pytest.raises(InputError, match="too many"):
        app.read_words(",".join(map(str, range(65))))


def test_the_file_alone_is_a_space(app: Any, tmp_path: Path, scene: Path) -> None:
    shutil.copy(app.__file__, tmp_path / "app.py")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "PACL_MODEL": "storybook"}
    child = subprocess.Popen([sys.executable, "app.py"], cwd=tmp_path, env=environment)
    try:
        address = f"http://127.0.0.1:{port}/"
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(address):
                break
            time.sleep(0.5)
        assert set(segment(address, scene, WORDS)[0]) == {"sky", "grass", "pine tree"}
    finally:
        child.terminate()
        child.wait()
