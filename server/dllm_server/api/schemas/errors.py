"""Errors of the API in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``, whatever went
wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from dllm_server.engine.requests.messages import Failed, FailureReason
from dllm_server.telemetry.request_log import refusal

MESSAGES_PATH = "/v1/messages"  # whose errors are in the shape of Anthropic's API
_MESSAGE_ERRORS: Mapping[int, str] = MappingProxyType(
    {
        401: "authentication_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
    }
)


class ErrorBody(BaseModel):
    """What went wrong, in words and in a code."""

    message: str = Field(description="What is wrong, with the value and the remedy.")
    type: str = Field(description="Family of the error, such as invalid_request_error.")
    param: str | None = Field(description="Request field at fault, if one is.")
    code: str | None = Field(description="Machine-readable reason, if there is one.")


class ErrorResponse(BaseModel):
    """Body of every answer that is not a success."""

    error: ErrorBody


class ApiError(Exception):
    """An answer that is not a success; raise it anywhere below a route."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        error_type: str,
        param: str | None = None,
        code: str | None = None,
        reason: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """``reason`` is the kind of mistake, for the log, where ``code`` does not say it."""
        super().__init__(message)
        self.status = status
        self.reason = reason or code or error_type
        self.headers = dict(headers or {})
        self.body = ErrorResponse(error=ErrorBody(message=message, type=error_type, param=param, code=code))

    def content(self) -> bytes:
        """JSON in ASCII: a message may quote text that UTF-8 cannot encode (a lone surrogate)."""
        return json.dumps(self.body.model_dump()).encode("ascii")

    def message_body(self) -> dict[str, Any]:
        """The body in the shape of Anthropic's API."""
        kind = _MESSAGE_ERRORS.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": self.body.error.message}}

    def response(self) -> Response:
        return ErrorAnswer(self)

    def told(self) -> dict[str, Any]:
        """What the log may say of it: no message, since it may quote a value."""
        told = self.body.error
        return refusal(code=told.code, reason=self.reason, param=told.param)


class ErrorAnswer(Response):
    """The answer of an ``ApiError``; sending it leaves in the request's state what the log may say of it."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.content(), error.status, headers=error.headers, media_type="application/json")
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["refusal"] = self._error.told()
        if scope["path"].startswith(MESSAGES_PATH):
            self.body = json.dumps(self._error.message_body()).encode("ascii")
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def invalid_request(
    message: str, *, param: str | None = None, code: str | None = None, reason: str | None = None
) -> ApiError:
    return ApiError(400, message, error_type="invalid_request_error", param=param, code=code, reason=reason)


def internal_error() -> ApiError:
    return ApiError(500, "Internal error.", error_type="server_error", code="internal_error")


def context_too_long(message: str, *, param: str) -> ApiError:
    return invalid_request(message, param=param, code="context_length_exceeded")


def unknown_parameter(path: str) -> ApiError:
    message = f"Unrecognized request argument supplied: {path}"
    return invalid_request(message, param=path, reason="unknown_parameter")


def unsupported_parameter(path: str, value: Any, remedy: str) -> ApiError:
    """The refusal of a parameter that would change the answer; only a short value is told."""
    told = f" {value!r}" if isinstance(value, bool | int | float) and abs(value) < 1e15 else ""
    return unsupported(f"{path}{told} is not supported by this server: {remedy}", param=path)


def unsupported(message: str, *, param: str) -> ApiError:
    return invalid_request(message, param=param, code="unsupported_parameter")


def past_context(limit_tokens: int, problem: str, *, param: str) -> ApiError:
    """``context_too_long`` in the words by which clients know it: litellm and LangChain read the message,
    not the code, before they shorten a conversation and try again."""
    message = f"This model's maximum context length is {limit_tokens} tokens: {problem}"
    return context_too_long(message, param=param)


def wrong_key() -> ApiError:
    return ApiError(
        401,
        "Missing or wrong API key: send 'Authorization: Bearer KEY'.",
        error_type="invalid_request_error",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def unknown_model(name: str, served: str) -> ApiError:
    return ApiError(
        404,
        f"The model {name!r} does not exist: this server has {served!r}.",
        error_type="invalid_request_error",
        param="model",
        code="model_not_found",
    )


def body_too_large(limit_bytes: int) -> ApiError:
    message = f"The request body exceeds {limit_bytes} bytes (max_body_bytes): send a smaller one."
    return ApiError(413, message, error_type="invalid_request_error", code="body_too_large")


def compressed_body() -> ApiError:
    message = "Compressed bodies are not read: send the body without Content-Encoding."
    return ApiError(415, message, error_type="invalid_request_error", code="compressed_body")


def too_many_values(kind: str, most: int) -> ApiError:
    message = f"The body holds more than {most} {kind}: send fewer in a request."
    return invalid_request(message, code="too_many_values")


def queue_full(limit: int) -> ApiError:
    return ApiError(
        429,
        f"{limit} requests are already waiting (max_queued_requests): retry later.",
        error_type="rate_limit_error",
        code="queue_full",
        headers={"Retry-After": "1"},
    )


def shutting_down() -> ApiError:
    return ApiError(
        503,
        "The server is shutting down: retry elsewhere.",
        error_type="server_error",
        code="shutting_down",
        headers={"Retry-After": "1", "Connection": "close"},
    )


def engine_dead() -> ApiError:
    message = "The engine process has ended: the server is going down and will be restarted."
    return ApiError(503, message, error_type="server_error", code="engine_dead", headers={"Retry-After": "5"})


def no_snapshot() -> ApiError:
    """503: the engine has just started and has not told of itself."""
    return ApiError(
        503,
        "The engine has not told its state yet: ask again in a second.",
        error_type="server_error",
        code="no_snapshot",
        headers={"Retry-After": "1"},
    )


def not_finite() -> ApiError:
    message = (
        "The model computes NaN or infinity for request after request: restart the server, and if it does "
        "again, replace the checkpoint."
    )
    return ApiError(503, message, error_type="server_error", code="not_finite", headers={"Retry-After": "5"})


def no_keys() -> ApiError:
    message = (
        "The key file holds no key (api_keys_file), so that every request would be answered 401: put one in."
    )
    return ApiError(503, message, error_type="server_error", code="no_api_keys", headers={"Retry-After": "5"})


def timed_out(limit_seconds: float) -> ApiError:
    message = f"The request was not finished within {limit_seconds:g} seconds (request_timeout_seconds)."
    return ApiError(504, message, error_type="timeout_error", code="timeout")


def engine_failure(failure: Failed) -> ApiError:
    """The error for an engine request that ended with ``Failed``."""
    match failure.reason:
        case FailureReason.TOO_LARGE:
            return context_too_long(failure.message, param="max_tokens")
        case FailureReason.GRAMMAR:
            return invalid_request(f"the grammar cannot be followed: {failure.message}", code="grammar")
        case FailureReason.OUT_OF_MEMORY:
            headers = {"Retry-After": "1"}
            return ApiError(
                503, failure.message, error_type="server_error", code="out_of_memory", headers=headers
            )
        case FailureReason.SHUTTING_DOWN:
            return shutting_down()
        case FailureReason.NOT_FINITE:
            return ApiError(500, failure.message, error_type="server_error", code="not_finite")
        case FailureReason.ENGINE_ERROR:
            return ApiError(500, failure.message, error_type="server_error", code="engine_error")


def validation_error(problem: Mapping[str, Any], location: tuple[int | str, ...]) -> ApiError:
    """The error for one of pydantic's: ``problem`` as in ``ValidationError.errors()``, ``location`` inside
    the body."""
    inner = problem.get("ctx", {}).get("param")
    param = ".".join(str(part) for part in (*location, inner) if part is not None) or None
    kind = problem["type"]
    match kind:
        case "json_invalid":
            message = f"The body is not JSON: {problem.get('ctx', {}).get('error', 'it cannot be parsed')}."
            return invalid_request(message, code="invalid_json")
        case "extra_forbidden":
            return unknown_parameter(param or "")
        case "unsupported_parameter":
            return invalid_request(f"{param}: {problem['msg']}", param=param, code="unsupported_parameter")
        case "missing" if param is not None:
            return invalid_request(f"Missing required parameter: {param}", param=param, reason=kind)
    text = str(problem["msg"]).removeprefix("Value error, ")
    return invalid_request(f"{param}: {text}" if param else text, param=param, reason=kind)


def install_error_handlers(app: FastAPI) -> None:
    """Give every failure of ``app`` OpenAI's shape, also those of the framework."""

    async def on_api_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)  # noqa: S101 - registered for this type alone
        return error.response()

    async def on_invalid_request(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        problem = _most_telling(error.errors())
        location = tuple(problem["loc"])[1:]  # without 'body', 'path' or 'query'
        if problem["type"] in ("model_attributes_type", "missing") and not location:
            return invalid_request(
                "Send the request as a JSON object, with Content-Type: application/json.", code="invalid_json"
            ).response()
        return validation_error(problem, location if problem["type"] != "json_invalid" else ()).response()

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        message = str(error.detail)
        if error.status_code == 404:
            message = f"Unknown path {request.url.path}: see /docs."
        elif error.status_code == 405:
            message = f"{request.method} is not allowed for {request.url.path}."
        kind = "invalid_request_error" if error.status_code < 500 else "server_error"
        code = HTTPStatus(error.status_code).name.lower()
        return ApiError(
            error.status_code, message, error_type=kind, code=code, headers=error.headers
        ).response()

    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(HTTPException, on_http_error)


def _most_telling(problems: Any) -> Any:
    """What an object is comes first: it explains the names in it, which pydantic may report besides."""
    first = ("json_invalid", "unsupported_parameter", "literal_error")
    return min(problems, key=lambda p: first.index(p["type"]) if p["type"] in first else len(first))
