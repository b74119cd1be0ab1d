"""Models from the hub: the real client against a hub on a local port, in a process of its own, since it reads
its settings when it is imported."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from dllm_server.models.hub import is_token_void, why
from fake_hub import Refusal, fake_hub

FIXTURE = Path(__file__).parents[1] / "fixtures" / "llada_mha"
MODEL = "owner/name"

PROGRAM = """
import sys
from dllm_server.models.files import ModelError
from dllm_server.models.source import resolve_model
try:
    print(resolve_model(sys.argv[1], sys.argv[2] or None))
except ModelError as error:
    sys.exit(f"ModelError: {error}")
"""


def resolve(
    home: Path, endpoint: str, model: str = MODEL, revision: str = "", **environment: str
) -> tuple[str, str]:
    """What ``resolve_model`` returns and what it refuses with, with a cache below ``home``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, model, revision],
        capture_output=True,
        text=True,
        timeout=120,
        env=inherited | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "NO_PROXY": "*"} | environment,
    )
    refusals = [line for line in result.stderr.splitlines() if line.startswith("ModelError: ")]
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode == (1 if refusals else 0), result.stderr
    return result.stdout.strip(), "\n".join(refusals)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_hub_id_becomes_a_directory_of_its_files_that_is_used_again_without_the_hub(tmp_path: Path) -> None:
    with fake_hub({MODEL: FIXTURE}) as hub:
        path, _ = resolve(tmp_path, hub.url)

    assert (Path(path) / "config.json").read_bytes() == (FIXTURE / "config.json").read_bytes()
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        assert resolve(tmp_path, f"http://127.0.0.1:{free_port()}", **environment) == (path, "")


@pytest.mark.parametrize(
    ("refusal", "token", "expected"),
    [
        (Refusal(404, "RepoNotFound"), "", "has no such model, or hides it as private: check the name"),
        (Refusal(401, "RepoNotFound"), "", "has no such model, or hides it as private: check the name"),
        (Refusal(401, "GatedRepo"), "", "it is gated: accept its terms at"),
        (Refusal(403, "GatedRepo", files_only=True), "hf_a", "it is gated: accept its terms at"),
        (
            Refusal(401, "", "Invalid credentials in Authorization header"),
            "hf_old",
            "does not know the token in HF_TOKEN: renew or unset it",
        ),
        (Refusal(403, "", "Forbidden"), "hf_a", "the token in HF_TOKEN may not read it"),
        (Refusal(418), "", "answered 418: try again later, or give a directory"),
    ],
    ids=[
        "missing",
        "missing or private",
        "gated",
        "gated files",
        "unknown token",
        "token without right",
        "odd",
    ],
)
def test_each_refusal_of_the_hub_has_its_own_line_and_remedy(
    refusal: Refusal, token: str, expected: str, tmp_path: Path
) -> None:
    with fake_hub({MODEL: FIXTURE}, {MODEL: refusal}) as hub:
        path, refused = resolve(tmp_path, hub.url, **({"HF_TOKEN": token} if token else {}))

    assert path == ""
    assert refused.startswith(f"ModelError: {MODEL}: no such directory, and ")
    assert expected in refused


def test_a_revision_that_the_hub_does_not_have_is_named(tmp_path: Path) -> None:
    with fake_hub({MODEL: FIXTURE}) as hub:
        _, refused = resolve(tmp_path, hub.url, revision="v9")

    assert "the hub has no revision 'v9' of it: check --revision" in refused


def test_a_hub_that_cannot_be_reached_is_no_missing_model(tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"

    _, refused = resolve(tmp_path, endpoint)

    assert f"the hub at {endpoint} cannot be reached (" in refused
    assert "holds no copy of it: check the network" in refused


def test_offline_without_a_copy_says_which_setting_forbids_to_fetch_one(tmp_path: Path) -> None:
    _, refused = resolve(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")

    assert "HF_HUB_OFFLINE is set while the cache" in refused
    assert str(tmp_path) in refused


def test_a_cache_that_cannot_be_written_is_named_with_its_remedy(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("")
    with fake_hub({MODEL: FIXTURE}) as hub:
        _, refused = resolve(home, hub.url)

    assert f"cache {home}" in refused
    assert "cannot be written (Not a directory): point HF_HOME to a directory" in refused


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_is_named_with_its_remedy(number: int) -> None:
    error = OSError(number, os.strerror(number), "/cache/blob")

    reason = why(error, MODEL, None, endpoint="http://hub", cache="/cache")

    assert reason.text.startswith(f"the hub's cache /cache/blob cannot be written ({os.strerror(number)})")


@pytest.mark.parametrize(
    ("token", "sent"),
    [("hf_a\n", "Bearer hf_a"), ("None", None), ("null\n", None), ("", None)],
    ids=["newline", "None", "null", "empty"],
)
def test_a_token_is_sent_clean_and_one_that_says_none_is_not_sent(
    token: str, sent: str | None, tmp_path: Path
) -> None:
    with fake_hub({MODEL: FIXTURE}) as hub:
        path, _ = resolve(tmp_path, hub.url, HF_TOKEN=token)

    assert path
    assert {token for token in hub.tokens if token} == ({sent} if sent else set())


def test_the_first_token_that_is_set_counts() -> None:
    assert is_token_void({"HF_TOKEN": "None", "HUGGING_FACE_HUB_TOKEN": "hf_a"})
    assert not is_token_void({"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "hf_a"})


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("./models/x", "no such directory, and not a hub id"),
        ("models/x/", "no such directory, and not a hub id"),
        ("/models/x", "no such directory, and not a hub id"),
        ("a/b/c", "no such directory, and not a hub id"),
        ("~no-such-user/x", "no such directory"),
        (str(FIXTURE / "config.json"), "a file, not a directory: give the directory that holds config.json"),
        ("owner/na me", "it is not a hub id"),
    ],
)
def test_a_path_that_was_meant_as_a_directory_is_not_asked_of_the_hub(
    model: str, expected: str, tmp_path: Path
) -> None:
    with fake_hub() as hub:
        _, refused = resolve(tmp_path, hub.url, model)

    assert f"ModelError: {model}: " in refused
    assert expected in refused
    assert hub.tokens == []
