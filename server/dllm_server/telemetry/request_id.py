"""The one id of a request: in every log line, in the answer's ``X-Request-Id`` and inside its body's id."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable

from starlette.types import Scope

REQUEST_ID_HEADER = b"x-request-id"

_ACCEPTED = re.compile(rb"[!-~]{1,128}")  # printable ASCII without spaces: safe in a header and in a log line


def choose_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's own id if it sent one that is short and printable, else a new one."""
    given = [value for name, value in headers if name.lower() == REQUEST_ID_HEADER]
    if len(given) == 1 and _ACCEPTED.fullmatch(given[0]):
        return given[0].decode("ascii")
    return uuid.uuid4().hex


def request_id_of(scope: Scope) -> str:
    """The id that the request was given when it came in; a new one for a request that no log has seen."""
    state = scope.setdefault("state", {})
    request_id: str = state.setdefault("request_id", choose_request_id(scope["headers"]))
    return request_id
