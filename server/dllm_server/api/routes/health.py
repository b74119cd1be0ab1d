"""Probes, open to everyone, and the version; they touch nothing but memory of this process."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter

from dllm_server.api.guards.auth import KeyFile
from dllm_server.api.guards.lifecycle import ServingState
from dllm_server.api.schemas.errors import engine_dead, no_keys, not_finite, shutting_down
from dllm_server.api.schemas.responses import Health, Version
from dllm_server.api.service import Service


def health_router(service: Service, keys: KeyFile | None) -> APIRouter:
    router = APIRouter(tags=["Operation"])

    @router.get("/health", summary="Whether the engine process is alive")
    async def health() -> Health:
        if service.lifecycle.state is ServingState.FAILED or not service.engine.is_alive:
            raise engine_dead()
        return Health(status="ok")

    @router.get("/ready", summary="Whether new requests are taken")
    async def ready() -> Health:
        await health()
        if service.lifecycle.state is not ServingState.SERVING:
            raise shutting_down()
        if service.engine.snapshot is not None and not service.engine.snapshot.is_sound:
            raise not_finite()
        if keys is not None and keys.is_empty:
            raise no_keys()
        return Health(status="ready")

    return router


def version_router() -> APIRouter:
    router = APIRouter(tags=["Operation"])

    @router.get("/version", summary="Version of the server")
    async def server_version() -> Version:
        return Version(version=package_version())

    return router


def package_version() -> str:
    try:
        return version("dllm-serve")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
