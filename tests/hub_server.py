"""A stand-in for the Hugging Face hub on loopback: what its client asks for, and no more."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_of_the_test"
REVISION = "c" * 40


class Hub(ThreadingHTTPServer):
    """Repositories of one branch, kept in memory: file name -> content."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[Hub]:
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        self.server.requests.append(f"{self.command} {self.path}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": "Invalid username or password."})
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization") or "me", asked["name"])))
            self.server.repositories.setdefault(name, {})
            return self._send(200, {"url": f"{self.server.address}/{name}", "name": name})
        if path == "/api/validate-yaml":  # the metadata at the top of a card
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            return self._send(200, {"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                each | {"actions": {"upload": {"href": f"{self.server.address}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return self._send(200, {"transfer": "basic", "objects": objects})
        name, _, verb = path.removeprefix("/api/models/").rpartition("/")
        name, _, verb = name.rpartition("/")
        if verb == "preupload":
            files = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            return self._send(200, {"files": files})
        if verb == "commit":
            self._commit(self.server.repositories[name], body)
            url = f"{self.server.address}/{name}/commit/{REVISION}"
            return self._send(200, {"success": True, "commitUrl": url, "commitOid": REVISION})
        return self._send(404, {"error": f"no {self.path}"})

    def _commit(self, files: dict[str, bytes], body: bytes) -> None:
        for line in body.splitlines():
            kind, value = (content := json.loads(line))["key"], content["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != oid:
            return self._send(400, {"error": "another content"})
        self.server.large[oid] = content
        return self._send(200, {})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/"):
            owner, _, rest = path.removeprefix("/api/models/").partition("/")
            name = f"{owner}/{rest.partition('/')[0]}"
            if name in self.server.repositories and "/tree/" in rest:
                contents = self.server.repositories[name].items()
                tree = [
                    {"type": "file", "path": file, "size": len(data), "oid": "0" * 40}
                    for file, data in contents
                ]
                return self._send(200, tree)
            if name in self.server.repositories:
                files = [{"rfilename": file} for file in self.server.repositories[name]]
                return self._send(200, {"id": name, "sha": REVISION, "siblings": files})
        elif "/resolve/" in path:
            name, _, rest = path.removeprefix("/").partition("/resolve/")
            content = self.server.repositories.get(name, {}).get(rest.partition("/")[2])
            if content is not None:
                etag = hashlib.sha256(content).hexdigest()
                return self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": REVISION})
        return self._send(404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _send(self, code: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        if not isinstance(content, bytes):
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
