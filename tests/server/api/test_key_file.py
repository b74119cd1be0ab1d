from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog
from dllm_server.api.guards.auth import KeyFile
from scripted_server import ScriptedServer


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_each_line_is_a_key_but_blanks_and_comments(tmp_path: Path) -> None:
    keys = KeyFile(write(tmp_path / "keys", "# team a", "one", "", "  two  "))

    assert [keys.accepts(key) for key in ("one", "two", "", "# team a", "on", "onee")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_a_changed_file_is_read_again_even_within_the_clock_resolution(tmp_path: Path) -> None:
    path = write(tmp_path / "keys", "one")
    keys = KeyFile(path)
    before = path.stat()
    write(path, "two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert (keys.accepts("one"), keys.accepts("two")) == (False, True)


def test_a_replaced_link_is_followed(tmp_path: Path) -> None:
    """As kubelet updates a mounted Secret."""
    link = tmp_path / "keys"
    link.symlink_to(write(tmp_path / "v1", "one"))
    keys = KeyFile(link)
    fresh = tmp_path / "fresh"
    fresh.symlink_to(write(tmp_path / "v2", "two"))
    fresh.rename(link)

    assert (keys.accepts("one"), keys.accepts("two")) == (False, True)


def test_a_file_that_vanishes_keeps_its_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "keys", "one")
    keys = KeyFile(path)
    path.unlink()

    assert keys.accepts("one")


def test_a_file_without_keys_accepts_none(tmp_path: Path) -> None:
    assert not KeyFile(write(tmp_path / "keys", "# none yet")).accepts("")


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"api_keys_file .*keys: No such file or directory"):
        KeyFile(tmp_path / "keys")


@pytest.mark.parametrize(
    "path",
    [
        "/snapshot",
        "/pages",
        "//",
        "/engine/",
        "/v1/models",
        "/v1/completions",
        "/v1/nope",
        "/tokenize",
        "/detokenize",
        "/metrics",
        "/version",
        "/docs",
        "/docs/oauth2-redirect",
        "/redoc",
        "/openapi.json",
        "/health/",
        "//ready",
    ],
)
def test_a_key_is_asked_for(tmp_path: Path, path: str) -> None:
    with ScriptedServer(api_keys_file=write(tmp_path / "keys", "right")) as server:
        url = f"{server.url}{path}"
        refused = [
            server.http.get(url, headers=headers).status_code
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"})
        ]
        with_key = server.http.get(url, headers={"Authorization": "bearer right"}).status_code

        assert refused == [401] * 3
        assert with_key != 401


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/engine", "/pages/theme.css"])
def test_probes_and_pages_need_no_key(tmp_path: Path, path: str) -> None:
    with ScriptedServer(api_keys_file=write(tmp_path / "keys", "right")) as server:
        assert server.http.get(path).status_code == 200


def test_while_the_file_holds_no_key_the_server_is_not_ready_and_lets_nobody_in(tmp_path: Path) -> None:
    path = write(tmp_path / "keys", "right")
    key = {"Authorization": "Bearer right"}
    with ScriptedServer(api_keys_file=path) as server:
        write(path, "")
        emptied = server.http.get("/ready")
        refused = server.http.get("/v1/models", headers=key)
        alive = server.http.get("/health")
        write(path, "right")

        assert (emptied.status_code, emptied.json()["error"]["code"]) == (503, "no_api_keys")
        assert refused.status_code == 401
        assert alive.status_code == 200
        assert server.http.get("/ready").status_code == 200
        assert server.http.get("/v1/models", headers=key).status_code == 200


def test_a_file_that_loses_its_keys_is_said_once_in_the_log(tmp_path: Path) -> None:
    path = write(tmp_path / "keys", "one")
    keys = KeyFile(path)

    with structlog.testing.capture_logs() as entries:
        write(path, "# nobody")
        assert [keys.is_empty, keys.is_empty] == [True, True]

    assert [entry["log_level"] for entry in entries] == ["error"]
    assert "no key" in entries[0]["event"]


def test_a_refused_key_is_not_shown_in_the_answer(tmp_path: Path) -> None:
    with ScriptedServer(api_keys_file=write(tmp_path / "keys", "right")) as server:
        response = server.http.get("/v1/models", headers={"Authorization": "Bearer wrong-secret"})

        assert response.headers["www-authenticate"] == "Bearer"
        assert "wrong-secret" not in response.text
