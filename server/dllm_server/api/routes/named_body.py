"""Routes that look at a body's names before its values: unknown ones are refused, or left out and told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from dllm_server.api.schemas.errors import unknown_parameter
from dllm_server.api.schemas.names import Names, names_of, read_names
from dllm_server.settings import UnknownParameters

log = structlog.get_logger(__name__)

IGNORED_HEADER = "X-DLLM-Ignored-Parameters"

_MOST_TOLD = 16
_NAME = re.compile(r"[\w.\-]{1,200}", re.ASCII)  # anything else may be a client's text, or break a header

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _SortedRequest(Request):
    """A request whose ``json`` is its body without the names that are no fields."""

    _fields: Any = None
    ignored: Sequence[str] = ()

    async def sort_names(self, names: Names, policy: UnknownParameters) -> None:
        """``ApiError`` 400 names the first parameter that is refused; a body that is no JSON stays."""
        try:
            body = await super().json()
        except (ValueError, RecursionError):
            return
        self._fields, self.ignored = read_names(body, names)
        if self.ignored and policy is UnknownParameters.REFUSE:
            raise unknown_parameter(self.ignored[0])

    async def json(self) -> Any:
        return await super().json() if self._fields is None else self._fields


def named_body_route(policy: UnknownParameters) -> type[APIRoute]:
    """The class of routes whose bodies may hold unknown names as ``policy`` says."""

    class NamedBodyRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()
            model = self.body_field.field_info.annotation if self.body_field is not None else None
            if not (isinstance(model, type) and issubclass(model, BaseModel)):
                return handle
            names = names_of(model)

            async def handle_sorted(request: Request) -> Response:
                sorted_request = _SortedRequest(request.scope, request.receive)
                await sorted_request.sort_names(names, policy)
                await asyncio.sleep(0)  # a large body takes about as long to parse as to validate
                response = await handle(sorted_request)
                _tell(response, sorted_request.ignored)
                return response

            return handle_sorted

    return NamedBodyRoute


def _tell(response: Response, ignored: Sequence[str]) -> None:
    """Name what was left out in a header and in the log."""
    if not ignored:
        return
    named = [path for path in ignored if _NAME.fullmatch(path)][:_MOST_TOLD]
    others = len(ignored) - len(named)
    told = [*named, f"and {others} more"] if others else named
    response.headers[IGNORED_HEADER] = ", ".join(told)
    log.warning("parameters ignored", parameters=named, count=len(ignored))
