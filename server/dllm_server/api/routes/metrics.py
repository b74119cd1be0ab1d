"""Prometheus metrics, on the API's port or on one of their own; they touch nothing but memory of this
process."""

from __future__ import annotations

from fastapi import APIRouter, Request
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from dllm_server.api.service import Service

PATH = "/metrics"


def metrics_router(service: Service) -> APIRouter:
    router = APIRouter(tags=["Operation"])

    @router.get(PATH, response_class=Response, summary="Prometheus metrics")
    async def metrics() -> Response:
        return _answer(service)

    return router


def create_metrics_app(service: Service) -> Starlette:
    """The application of a port that has nothing but metrics, and asks for no key."""

    async def metrics(_: Request) -> Response:
        return _answer(service)

    return Starlette(routes=[Route(PATH, metrics)])


def _answer(service: Service) -> Response:
    return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
