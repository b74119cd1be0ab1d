"""Bearer keys from a file, and the middleware that asks for one."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dllm_server.api.schemas.errors import wrong_key
from dllm_server.cause import Cause, Explanation

log = structlog.get_logger(__name__)

_RECENT_SECONDS = 2.0  # a file changed this recently may change again within the clock's resolution

OPEN_PATHS = frozenset({"/health", "/ready"})  # what probes ask


class KeyFileError(ValueError):
    """The file of keys cannot be read."""

    why = Explanation(Cause.KEYS_FILE)


class KeyFile:
    """One key a line (blank lines and ``#`` comments aside), read again when the file changes.

    A file without keys accepts none. A file that cannot be read later on keeps the keys it had, so that a
    Secret being replaced locks nobody out; one that cannot be read at the start raises ``KeyFileError``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._version = self._stat()
            self._digests = self._read()
            self._tell_if_empty()
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(f"api_keys_file {path}: {_reason(error)}") from error

    @property
    def is_empty(self) -> bool:
        """Whether the file holds no key, so that nobody gets in."""
        self._reload_if_changed()
        return not self._digests

    def accepts(self, key: str) -> bool:
        """Whether ``key`` is one of the file's, in a time that does not depend on which or how nearly."""
        self._reload_if_changed()
        digest = _digest(key)
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)

    def _reload_if_changed(self) -> None:
        try:
            version = self._stat()
            if version == self._version and not self._changed_recently():
                return
            before, self._digests = self._digests, self._read()
            self._version = version
            if self._digests != before:
                self._tell_if_empty()
        except (OSError, UnicodeDecodeError) as error:
            log.error("api keys not reloaded", path=str(self._path), reason=_reason(error))

    def _stat(self) -> tuple[int, int, int, int]:
        stat = self._path.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns

    def _tell_if_empty(self) -> None:
        if not self._digests:
            log.error(
                "api keys file holds no key: not ready, and every request is refused", path=str(self._path)
            )

    def _changed_recently(self) -> bool:
        return abs(time.time() - self._version[3] / 1e9) < _RECENT_SECONDS

    def _read(self) -> tuple[bytes, ...]:
        lines = (line.strip() for line in self._path.read_text(encoding="utf-8").splitlines())
        return tuple(_digest(line) for line in lines if line and not line.startswith("#"))


def open_keys(path: Path | None) -> KeyFile | None:
    """The keys of a file; None, without a file, asks nobody for a key."""
    return KeyFile(path) if path is not None else None


class BearerAuth:
    """ASGI middleware: 401 without a key of the file, before the body is read; only paths that are open need
    none."""

    def __init__(self, app: ASGIApp, keys: KeyFile, is_open: Callable[[str], bool]) -> None:
        self._app, self._keys, self._is_open = app, keys, is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        needs_key = scope["type"] == "http" and not self._is_open(scope["path"])
        if needs_key and not self._keys.accepts(_key(Headers(scope=scope))):
            await wrong_key().response()(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _key(headers: Headers) -> str:
    """The bearer's, or, as Anthropic's clients send it, that of ``x-api-key``."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _digest(key: str) -> bytes:
    """Equal lengths for the constant-time comparison."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "not UTF-8 text"
