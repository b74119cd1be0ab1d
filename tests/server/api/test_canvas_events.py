"""Canvas events: what they tell with and without ``include_canvas_confidence``."""

from __future__ import annotations

import json
from typing import Any

from dllm_server.engine.requests.messages import CanvasUpdate, Generate
from scripted_engine import Step, count_up
from scripted_server import ScriptedServer

BODY = {"prompt": [1, 2, 3], "max_tokens": 4, "stream": True}


def with_confidence(request: Generate) -> list[Step]:
    """Token 7 stands, a special token too, two are masked; the second mask's row was not looked at."""
    told = [0.75, 0.5, 0.25, None] if request.wants_confidence else []
    shown = CanvasUpdate(request.request_id, 0, [7, 1001, -1, -1], 1, "refresh", told)
    return [shown, *count_up(request)[1:]]


def canvases(server: ScriptedServer, options: dict[str, Any], **body: Any) -> list[dict[str, Any]]:
    answer = server.http.post("/v1/completions", json=BODY | {"stream_options": options} | body)
    assert answer.status_code == 200, answer.text
    frames = answer.text.split("\n\n")
    return [json.loads(frame.split("data: ")[1]) for frame in frames if frame.startswith("event: canvas\n")]


def test_a_canvas_event_tells_its_phase_and_no_more_than_is_asked_for() -> None:
    with ScriptedServer(with_confidence) as server:
        first = canvases(server, {"include_canvas": True})[0]

        assert (first["phase"], first["forward_passes"]) == ("refresh", 1)
        assert not {"confidence", "token_texts"} & set(first)


def test_confidence_comes_with_each_tokens_own_text() -> None:
    options = {"include_canvas": True, "include_canvas_confidence": True}
    with ScriptedServer(with_confidence) as server:
        first = canvases(server, options)[0]
        shown = canvases(server, options, skip_special_tokens=False)[0]

        assert first["confidence"] == [0.75, 0.5, 0.25, None]
        assert first["token_texts"] == ["t7", "", None, None]
        assert shown["token_texts"][1] == "<|endoftext|>"


def test_confidence_without_the_canvas_is_refused_by_its_name() -> None:
    with ScriptedServer() as server:
        body = BODY | {"stream_options": {"include_canvas_confidence": True}}
        answer = server.http.post("/v1/completions", json=body)

        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "stream_options.include_canvas_confidence"
