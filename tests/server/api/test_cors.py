"""Pages of other origins: none may call the server, or those that it names."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from dllm_server.settings import ServeSettings
from scripted_engine import hang
from scripted_server import ScriptedServer
from test_request_failures import open_request

PAGE = "https://chat.example"
BODY = {"prompt": [1, 2], "max_tokens": 4}


def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("k\n")
    return path


def preflight(server: ScriptedServer, origin: str = PAGE) -> Any:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-request-id,x-stainless-lang",
    }
    return server.http.options("/v1/chat/completions", headers=headers)


def test_without_the_setting_no_origin_is_allowed() -> None:
    with ScriptedServer() as server:
        answer = server.http.get("/v1/models", headers={"Origin": PAGE})

        assert "access-control-allow-origin" not in answer.headers
        assert preflight(server).status_code == 405


def test_a_preflight_passes_without_a_key(tmp_path: Path) -> None:
    with ScriptedServer(cors_allow_origins=(PAGE,), api_keys_file=keys(tmp_path)) as server:
        answer = preflight(server)

        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "x-stainless-lang" in answer.headers["access-control-allow-headers"]
        assert "x-request-id" in answer.headers


def test_another_origin_is_not_allowed() -> None:
    with ScriptedServer(cors_allow_origins=(PAGE,)) as server:
        assert preflight(server, "https://evil.example").status_code == 400
        answer = server.http.get("/v1/models", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("status", [200, 401, 413, 429])
def test_answers_and_errors_can_be_read_by_the_page(status: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "cors_allow_origins": (PAGE,),
        "max_body_bytes": 1024,
        "slots": 1,
        "max_queued_requests": 1,
    }
    if status == 401:
        settings["api_keys_file"] = keys(tmp_path)
    with ScriptedServer(hang, **settings) as server, ExitStack() as stack:
        if status == 429:
            stack.enter_context(open_request(server, n=2))
        body = {413: BODY | {"prompt": [1] * 600}, 429: BODY}.get(status)
        method, path = ("GET", "/v1/models") if body is None else ("POST", "/v1/completions")
        answer = server.http.request(method, path, json=body, headers={"Origin": PAGE})

        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        exposed = answer.headers["access-control-expose-headers"].lower()
        assert {"x-request-id", "retry-after"} <= {name.strip() for name in exposed.split(",")}


def test_origins_are_separated_by_commas_in_flags_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    origins = ("https://a.example", "https://b.example")
    assert ServeSettings.load({"cors_allow_origins": ", ".join(origins)}).cors_allow_origins == origins
    monkeypatch.setenv("DLLM_CORS_ALLOW_ORIGINS", ",".join(origins))
    assert ServeSettings.load({}).api().cors_allow_origins == origins
