"""The playground and the engine page: files of this package, which ask the API for all else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FILES = Path(__file__).parents[1] / "pages"
PAGES = {"/": "playground.html", "/engine": "engine.html"}
ASSETS = "/pages"

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # an upgrade's files fit together: ask each time, and be told 304
}


class _Assets(StaticFiles):
    """Scripts and styles, under the pages' own policy."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def is_page(path: str) -> bool:
    """Whether a browser asks for it before anybody could give it a key. It says nothing of the server."""
    return path in PAGES or path.startswith(f"{ASSETS}/")


def add_pages(app: FastAPI) -> None:
    for path, name in PAGES.items():
        app.add_api_route(path, _page(name), methods=["GET", "HEAD"], include_in_schema=False)
    app.mount(ASSETS, _Assets(directory=FILES / "assets"))


def _page(name: str) -> Callable[[], Awaitable[FileResponse]]:
    async def page() -> FileResponse:
        return FileResponse(FILES / name, headers=HEADERS)

    return page
