"""Routes that read a body in one go, beside the event loop where it is large. They look at its names before
its values: unknown ones are refused, or left out and told."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from dllm_server.api.guards.body_limit import has_large_body
from dllm_server.api.guards.text_workers import TextWorkers
from dllm_server.api.schemas.errors import unknown_parameter
from dllm_server.api.schemas.names import Names, names_of, read_names
from dllm_server.settings import UnknownParameters

log = structlog.get_logger(__name__)

IGNORED_HEADER = "X-DLLM-Ignored-Parameters"

_MOST_TOLD = 16
_NAME = re.compile(r"[\w.\-]{1,200}", re.ASCII)  # anything else may be a client's text, or break a header

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def read_json(content: bytes) -> Any:
    """What ``json.loads`` makes of it, in a third of the time but for what only it reads, or can say what is
    wrong with."""
    with contextlib.suppress(ValueError):
        return from_json(content)
    return json.loads(content)


@dataclass(frozen=True, slots=True)
class ReadBody:
    """A body as its route's model, and the names that were left out; or why it is no JSON."""

    value: BaseModel | None = None
    ignored: Sequence[str] = ()
    fault: Exception | None = None


@dataclass(frozen=True, slots=True)
class BodyReader:
    model: type[BaseModel]
    names: Names
    policy: UnknownParameters

    def read(self, content: bytes) -> ReadBody:
        """``ApiError`` 400 names the first parameter that is refused, ``RequestValidationError`` the first
        value that is no good."""
        try:
            body = read_json(content)
        except (ValueError, RecursionError) as error:
            return ReadBody(fault=error.with_traceback(None))  # its frames would keep the body
        fields, ignored = read_names(body, self.names)
        if ignored and self.policy is UnknownParameters.REFUSE:
            raise unknown_parameter(ignored[0])
        try:
            return ReadBody(self.model.model_validate(fields, from_attributes=True), ignored)
        except ValidationError as error:
            problems = error.errors(include_url=False)
        raise RequestValidationError([{**problem, "loc": ("body", *problem["loc"])} for problem in problems])


class _ReadRequest(Request):
    """A request whose ``json`` is its body as the route's model, which FastAPI takes as it is."""

    def __init__(self, request: Request, read: ReadBody, content: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._body = content
        self._value, self._fault = read.value, read.fault

    async def json(self) -> Any:
        if self._fault is None:
            return self._value
        try:
            raise self._fault
        finally:
            self._fault = None


def named_body_route(policy: UnknownParameters, workers: TextWorkers) -> type[APIRoute]:
    """The class of routes whose bodies may hold unknown names as ``policy`` says."""

    class NamedBodyRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()
            model = self.body_field.field_info.annotation if self.body_field is not None else None
            if not (isinstance(model, type) and issubclass(model, BaseModel)):
                return handle
            reader = BodyReader(model, names_of(model), policy)

            async def handle_read(request: Request) -> Response:
                content = await request.body()
                is_large = has_large_body(request.scope)
                read = await workers.read(partial(reader.read, content), is_large=is_large)
                response = await handle(_ReadRequest(request, read, content))
                _tell(response, read.ignored)
                return response

            return handle_read

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
