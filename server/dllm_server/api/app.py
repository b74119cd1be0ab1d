"""The FastAPI application: routes and the layers around them."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from starlette.middleware.cors import CORSMiddleware

from dllm_server.api.answers.markup import Dialect
from dllm_server.api.answers.plan import Limits
from dllm_server.api.guards.admission import Admission
from dllm_server.api.guards.auth import OPEN_PATHS, BearerAuth, KeyFile
from dllm_server.api.guards.body_limit import BodyLimit
from dllm_server.api.guards.disconnect import CancelOnDisconnect
from dllm_server.api.guards.failsafe import Failsafe
from dllm_server.api.guards.leaving import Leaving
from dllm_server.api.guards.lifecycle import Lifecycle
from dllm_server.api.routes.chat import chat_router
from dllm_server.api.routes.completions import completions_router
from dllm_server.api.routes.health import health_router, package_version, version_router
from dllm_server.api.routes.messages import messages_router
from dllm_server.api.routes.metrics import metrics_router
from dllm_server.api.routes.models import models_router
from dllm_server.api.routes.pages import add_pages, is_page
from dllm_server.api.routes.responses import responses_router
from dllm_server.api.routes.snapshot import snapshot_router
from dllm_server.api.routes.tokens import tokens_router
from dllm_server.api.schemas.errors import ErrorResponse, install_error_handlers
from dllm_server.api.service import Service
from dllm_server.engine.process.client import EngineClient
from dllm_server.models.tokenizer import Tokenizer
from dllm_server.settings import ApiSettings, DiffusionSettings
from dllm_server.structure.checker import GrammarChecker
from dllm_server.telemetry.metrics import Metrics
from dllm_server.telemetry.request_log import RequestLog
from dllm_server.telemetry.request_trace import TraceRequests
from dllm_server.tracing import Tracer

DESCRIPTION = """OpenAI-compatible API of a masked-diffusion language model.

Tokens are committed in blocks, so a stream has a chunk for each block. Temperature is 0 unless the request
says otherwise. A parameter that is not listed is refused with its name, unless its value asks for nothing
(null, a penalty of 0, no tools, ...)."""

EXPOSED_HEADERS = ("X-Request-Id", "Retry-After")  # what a page in a browser may read of an answer

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorResponse, "description": "The request cannot be answered as it is."},
    "5XX": {"model": ErrorResponse, "description": "The server cannot answer now."},
}


def create_service(
    settings: ApiSettings,
    engine: EngineClient,
    tokenizer: Tokenizer,
    diffusion: DiffusionSettings,
    tracer: Tracer | None = None,
) -> Service:
    """The parts behind the routes; ``diffusion`` is what a request's ``diffusion`` object is merged over."""

    def slots() -> int:
        return engine.snapshot.max_num_seqs if engine.snapshot is not None else 0

    lifecycle, model = Lifecycle(), engine.model
    return Service(
        settings=settings,
        engine=engine,
        tokenizer=tokenizer,
        limits=Limits(model, diffusion),
        lifecycle=lifecycle,
        admission=Admission(lifecycle, settings.max_queued_requests, slots),
        metrics=Metrics(lambda: engine.snapshot, model.name),
        dialect=Dialect.of(tokenizer, settings.tool_call_parser),
        grammars=GrammarChecker(model.vocabulary_files),
        tracer=tracer,
    )


def create_app(service: Service, keys: KeyFile | None = None) -> FastAPI:
    """The application over a service; with ``keys``, all but the probes and the pages ask for one of them."""
    app = FastAPI(
        title="dLLM-Serve",
        version=package_version(),
        description=DESCRIPTION,
        redirect_slashes=False,
        strict_content_type=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # FastAPI's own holds clients' text
    )
    bearer = HTTPBearer(auto_error=False, description="A key of the server's key file.")  # for /docs alone
    guard = [Depends(bearer)] if keys is not None else []
    routers = (
        chat_router,
        completions_router,
        responses_router,
        messages_router,
        models_router,
        tokens_router,
        snapshot_router,
    )
    for router in routers:
        app.include_router(router(service), dependencies=guard, responses=_ERRORS)
    app.include_router(health_router(service, keys), responses={"5XX": _ERRORS["5XX"]})
    app.include_router(version_router(), dependencies=guard)
    if service.settings.metrics_port is None:
        app.include_router(metrics_router(service), dependencies=guard)
    has_pages = service.settings.pages
    if has_pages:
        add_pages(app)
    install_error_handlers(app)
    # Layers, innermost first: a request is named and logged, then must show a key, then may send its body.
    app.add_middleware(CancelOnDisconnect)
    app.add_middleware(BodyLimit, limit_bytes=service.settings.max_body_bytes)
    if keys is not None:

        def is_open(path: str) -> bool:
            return path in OPEN_PATHS or (has_pages and is_page(path))

        app.add_middleware(BearerAuth, keys=keys, is_open=is_open)
    app.add_middleware(Failsafe)
    if service.settings.cors_allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.cors_allow_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),  # clients send a family of their own (X-Stainless-...)
            expose_headers=EXPOSED_HEADERS,
        )
    app.add_middleware(RequestLog, metrics=service.metrics.requests)
    if service.tracer is not None:
        app.add_middleware(TraceRequests, tracer=service.tracer)
    app.add_middleware(Leaving, lifecycle=service.lifecycle)
    return app
