"""The demo's page in a real browser: Debian's chromium and chromium-driver, and selenium."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pacl.datasets.storybook import draw_scene

pytest.importorskip("gradio")
webdriver = pytest.importorskip("selenium.webdriver")
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("no chromium, or no chromedriver", allow_module_level=True)

pytestmark = pytest.mark.slow
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --window-size=1150,1300"
)
HTML = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    child = subprocess.Popen([sys.executable, "-m", "pacl", "demo", "--port", str(port)])
    address = f"http://127.0.0.1:{port}/"
    for _ in range(240):
        with suppress(OSError), urllib.request.urlopen(address):
            break
        time.sleep(0.5)
    yield address
    child.terminate()
    child.wait()


class Page:
    """What a visitor does and sees."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        browser.get(address)
        self.until(lambda: self.all("#segment"))

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def until(self, is_so: Callable[[], Any]) -> Any:
        for _ in range(300):
            with suppress(Exception):  # elements are replaced while they are looked at
                if found := is_so():
                    return found
            time.sleep(0.1)
        raise AssertionError(f"not in time; the page says:\n{self.text()}")

    def text(self) -> str:
        return self.all("body")[0].text

    def upload(self, path: Path) -> None:
        for button in self.all('button[aria-label="Clear"]'):
            button.click()
        self.until(lambda: self.all("input[type=file]"))[0].send_keys(str(path))

    def segment(self, words: str) -> None:
        box = self.all("#labels textarea, #labels input")[0]
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(Keys.DELETE, words)  # the page does not hear of clear()
        self.all("#segment")[0].click()

    def names(self) -> list[str]:
        return [each.text for each in self.all("#pacl .legend-item")]

    def toast(self, words: str) -> None:
        self.until(lambda: any(words in each.text for each in self.all(".toast-body")))
        for button in self.all(".toast-close"):
            with suppress(Exception):
                button.click()
        self.until(lambda: not self.all(".toast-body"))


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS.split():
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield Page(browser, address)
    browser.quit()


def test_a_visit(page: Page, tmp_path: Path) -> None:
    scene = tmp_path / "scene.png"
    Image.fromarray(draw_scene("test", 3).image).save(scene)
    page.segment("sky")
    page.toast("no image")
    page.upload(scene)
    page.until(lambda: page.all('img[alt=""], .image-frame img'))
    page.segment("sky, snow, pine tree")
    page.until(lambda: page.names() == ["sky", "snow", "pine tree"])
    page.segment("sea, tent")
    page.until(lambda: page.names() == ["sea", "tent"])
    page.all("#pacl .legend-item")[1].click()
    page.until(lambda: page.all("#phrase input")[0].get_attribute("value") == "tent")
    page.until(lambda: page.all("#heat img"))
    page.segment("")
    page.until(lambda: {"sky", "snow", "tent"} <= set(page.names()))
    page.segment(f"sky, {HTML}")
    page.until(lambda: HTML in page.text())
    assert not page.all("#pacl .legend img")

    page.segment(",".join(f"w{k}" for k in range(500)))
    page.toast("500 labels are too many")
    renamed, large = tmp_path / "text.jpg", tmp_path / "large.jpg"
    renamed.write_text("no image")
    large.write_bytes(os.urandom(50_000_000))
    page.upload(renamed)
    time.sleep(1)
    page.segment("sky")
    page.toast("is not an image")
    page.upload(large)
    page.toast("exceed")
    assert not re.search(r'Traceback|File "|/tmp/', page.text())
