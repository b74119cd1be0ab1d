"""A hub on a local port: what huggingface_hub asks of one, and the ways in which one refuses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Refusal:
    """Of every request for a model, or only of its files."""

    status: int
    code: str = ""
    message: str = ""
    files_only: bool = False


@dataclass
class FakeHub:
    """``models`` maps ids to directories, ``refusals`` ids to what is said instead."""

    url: str
    models: dict[str, Path]
    refusals: dict[str, Refusal]
    revisions: frozenset[str] = frozenset({"main", COMMIT})
    tokens: list[str | None] = field(default_factory=list)
    """The ``Authorization`` of each request."""


@contextmanager
def fake_hub(
    models: dict[str, Path] | None = None, refusals: dict[str, Refusal] | None = None
) -> Iterator[FakeHub]:
    """Serves until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = FakeHub(f"http://127.0.0.1:{server.server_port}", models or {}, refusals or {})
    server.hub = hub  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub: FakeHub = self.server.hub  # type: ignore[attr-defined]
        hub.tokens.append(self.headers.get("Authorization"))
        parts = self.path.partition("?")[0].strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if is_api else parts
        model = f"{owner}/{name}"
        refusal = hub.refusals.get(model)
        if refusal is None and model not in hub.models:
            refusal = Refusal(404, "RepoNotFound", "Repository not found")
        if refusal is None and rest[1] not in hub.revisions:
            refusal = Refusal(404, "RevisionNotFound", "Invalid rev id")
        if refusal is not None and not (refusal.files_only and is_api):
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self._send(refusal.status, b"{}", {name: value for name, value in headers.items() if value})
            return
        directory = hub.models[model]
        match rest:
            case ["revision", _]:
                self._send(200, json.dumps({"id": model, "sha": COMMIT, "siblings": []}).encode())
            case ["tree", _]:
                files = [_entry(path) for path in sorted(directory.iterdir())]
                self._send(200, json.dumps(files).encode())
            case ["resolve", _, file]:
                content = (directory / file).read_bytes()
                headers = {"ETag": f'"{_blob(content)}"', "X-Repo-Commit": COMMIT}
                self._send(200, content, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


def _entry(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    return {"type": "file", "path": path.name, "size": len(content), "oid": _blob(content)}


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
