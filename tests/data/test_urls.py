"""Addresses, against a server of the test's own on loopback."""

from __future__ import annotations

import io
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import pytest
from PIL import Image

from pacl.data import urls
from pacl.data.sources import find_sources
from pacl.errors import InputError

_buffer = io.BytesIO()
Image.new("RGB", (5, 4), "green").save(_buffer, format="PNG")
PNG = _buffer.getvalue()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.strip("/").partition("?")[0]
        if name in ("loop", "moved"):
            self._send(302, Location="/loop" if name == "loop" else "/image.png")
        elif name == "image.png":
            self._send(200, PNG, **{"Content-Type": "image/png"})
        elif name == "page":
            self._send(200, b"<html>", **{"Content-Type": "text/html; charset=utf-8"})
        elif name == "page.jpg":  # and says that it is none
            self._send(200, b"<html>", **{"Content-Type": "image/jpeg"})
        elif name == "huge":
            self._send(200, PNG, **{"Content-Length": str(5 << 30)})
        elif name == "endless":
            self._send(200, bytes(urls.BYTES_MAX + 2))
        elif name == "short":
            self._send(200, PNG[:40], **{"Content-Length": str(len(PNG))})
        else:
            self._send(404)

    def _send(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        with suppress(ConnectionError):  # the reader has seen enough
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler) as own:
        own.daemon_threads = True
        threading.Thread(target=own.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{own.server_address[1]}"
        own.shutdown()


@pytest.mark.parametrize("name", ["image.png", "image.png?size=large", "moved"])
def test_an_image_is_read(server: str, name: str) -> None:
    [source] = find_sources(f"{server}/{name}")
    assert source.name == f"{server}/{name}"
    assert source.open().size == (5, 4)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("page", "is a web page, not an image"),
        ("page.jpg", "is not an image"),
        ("nowhere.png", "HTTP 404"),
        ("loop", "redirects in a circle"),
        ("huge", "declares 5,368,709,120 bytes"),
        ("endless", "more than 1,000 bytes"),
        ("short", "ends after 40 bytes"),
    ],
)
def test_each_failure_is_one_clear_error(
    server: str, name: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "BYTES_MAX", 1000)
    [source] = find_sources(f"{server}/{name}")
    with pytest.raises(InputError, match=says) as caught:
        source.open()
    assert str(caught.value).count(f"{server}/{name}") == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a.png", "file:///etc/hosts", "ftp://127.0.0.1/a.png", "http://"]
)
def test_what_is_no_readable_address_is_said(url: str) -> None:
    [source] = find_sources(url)
    with pytest.raises(InputError, match="cannot read"):
        source.open()
