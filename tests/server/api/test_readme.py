"""What the README promises of the embedded model, over HTTP."""

import json
import re
from pathlib import Path

from real_server import RealServer

README = Path(__file__).parents[3] / "README.md"


def test_the_readmes_curl_gets_the_answer_it_names() -> None:
    command = re.search(r"```bash\ncurl .*?-d '(.*?)'\n```\n\nanswers `(.*?)`", README.read_text(), re.DOTALL)
    assert command is not None
    body, answer = json.loads(command[1]), command[2]

    with RealServer(model="embedded") as server:
        reply = server.http.post("/v1/chat/completions", json=body).json()

    assert reply["choices"][0]["message"]["content"] == answer
    assert reply["usage"]["completion_tokens"] > 0
    assert reply["dllm_stats"]["forward_passes"] >= 1


def test_the_embedded_model_streams_its_denoising() -> None:
    body = {
        "messages": [{"role": "user", "content": "Who are you?"}],
        "stream": True,
        "stream_options": {"include_canvas": True},
    }
    with RealServer(model="embedded") as server:
        lines = server.http.post("/v1/chat/completions", json=body).text.splitlines()

    assert "event: canvas" in lines
    assert lines[-2] == "data: [DONE]"
    chunks = [json.loads(line[6:]) for line in lines if line.startswith('data: {"id"')]
    text = "".join(
        choice["delta"].get("content") or "" for c in chunks for choice in c["choices"] if "delta" in choice
    )
    assert "dLLM-Serve" in text
