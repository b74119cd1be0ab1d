"""``dllm serve`` told to stop, or killed, at every stage of its start: real processes that stand still."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from tests.stages.standing_still import DEADLINE_SECONDS, is_gone, standing_still, until, who_stands_still

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "llada_mha"
SERVE = ("-m", "dllm_server.cli", "serve", "--host", "127.0.0.1", "--port", "0", "--device", "cpu")
OWN_STAGES = {
    "importing the commands": "import:pydantic",
    "importing the server": "import:uvicorn",
    "reading settings": "call:dllm_server/settings/serve.py:load",
}
ENGINE_STAGES = {
    "importing torch": "import:torch",
    "looking for the model": "call:models/source.py:resolve_model",
    "downloading": "call:models/hub.py:download",
    "reading the checkpoint": "call:models/registry.py:open_checkpoint",
    "loading weights": "call:models/loader.py:load_model",
    "choosing kernels": "call:device/kernel_choice.py:pick_operations",
    "measuring": "call:device/profiler.py:measure",
    "making the pool": "call:device/kv_pool.py:for_model",
}
LATER_STAGES = {"reading the tokenizer": "call:models/tokenizer.py:load_tokenizer"}
STAGES = OWN_STAGES | ENGINE_STAGES | LATER_STAGES


def model_for(stage: str) -> str:
    return "nobody/nothing" if stage == "downloading" else str(FIXTURE)


def leftovers(folder: Path) -> list[Path]:
    """Of the engine's socket: files are made below TMPDIR."""
    return list(folder.glob("dllm-*"))


pytestmark = pytest.mark.sampled(0.5, of="stages of the server")


@pytest.mark.parametrize(
    ("stage", "stop"),
    [
        *((stage, signal.SIGTERM) for stage in STAGES),
        ("importing the server", signal.SIGINT),
        ("loading weights", signal.SIGINT),
    ],
    ids=str,
)
def test_told_to_stop_at_any_stage_it_ends_with_0_and_leaves_nothing(
    stage: str, stop: signal.Signals, tmp_path: Path
) -> None:
    with standing_still([*SERVE, model_for(stage)], STAGES[stage], tmp_path) as server:
        server.send_signal(stop)

        assert server.wait(DEADLINE_SECONDS) == 0, (tmp_path / "log").read_text()
        until(lambda: is_gone(who_stands_still(tmp_path)), "the engine process is gone")
        assert leftovers(tmp_path) == []
        assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("stage", ["importing torch", "making the pool"])
def test_an_engine_that_starts_ends_with_a_server_that_is_killed(stage: str, tmp_path: Path) -> None:
    with standing_still([*SERVE, model_for(stage)], ENGINE_STAGES[stage], tmp_path) as server:
        engine = who_stands_still(tmp_path)
        assert engine != server.pid

        server.kill()

        until(lambda: is_gone(engine), "the engine process is gone")


@pytest.mark.parametrize("stage", ["importing torch", "loading weights"])
def test_a_signal_to_the_engine_alone_does_not_end_it(stage: str, tmp_path: Path) -> None:
    """As a service manager sends it, to all processes at once."""
    with standing_still([*SERVE, model_for(stage)], ENGINE_STAGES[stage], tmp_path) as server:
        engine = psutil.Process(who_stands_still(tmp_path))
        engine.send_signal(signal.SIGTERM)
        engine.send_signal(signal.SIGINT)
        server.send_signal(signal.SIGTERM)

        assert server.wait(DEADLINE_SECONDS) == 0
