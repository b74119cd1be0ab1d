"""Chat templates as checkpoints carry them: a refusal is a 400 with the template's words, never a 500."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from dllm_server.models.tokenizer import load_tokenizer
from scripted_engine import FIXTURE
from scripted_server import ScriptedServer

RENDER = "{% for m in messages %}t1 {{ m['content'] }} {% endfor %}"


def answer(directory: Path, content: str = "t5") -> tuple[int, Any]:
    """The status, and the tokens the engine was sent or the error's message."""
    with ScriptedServer(tokenizer=load_tokenizer(directory)) as server:
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
        response = server.http.post("/v1/chat/completions", json=body)
        tokenised = server.http.post("/tokenize", json={"messages": body["messages"]})
        assert tokenised.status_code == response.status_code
        if response.status_code == 200:
            assert tokenised.json()["tokens"] == server.engine.requests[0].prompt
            return 200, server.engine.requests[0].prompt
        assert response.json()["error"]["param"] == "messages"
        return response.status_code, response.json()["error"]["message"]


def make_directory(directory: Path, template: Any = None, *, named: dict[str, str] | None = None) -> Path:
    """The fixture's tokenizer with ``template`` in tokenizer_config.json, and files ``named`` beside it."""
    shutil.copy(FIXTURE / "tokenizer.json", directory)
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    config |= {} if template is None else {"chat_template": template}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    for file, text in (named or {}).items():
        (directory / file).parent.mkdir(exist_ok=True)
        (directory / file).write_text(text)
    return directory


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[5].content }}", "has no element 5"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 'a' + 1 }}", "str"),
        ("{{ {}['absent'].content }}", "absent"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages | no_such_filter }}", "no_such_filter"),
        ("{{ messages.__class__.__mro__ }}{{ ''.__class__.mro() }}", "unsafe"),
        ("{{ raise_exception('no <|mdm_mask|> here: ' + messages[0].content) }}", "no <|mdm_mask|> here: t5"),
        ([{"name": "rag", "template": RENDER}], "rag"),
    ],
)
def test_a_template_that_cannot_render_is_a_400_in_its_own_words(
    tmp_path: Path, template: Any, words: str
) -> None:
    status, message = answer(make_directory(tmp_path, template))

    assert (status, message.startswith("the model's chat template refuses the messages: ")) == (400, True)
    assert words in message
    assert "\n" not in message


def test_the_words_of_a_template_hold_no_sign_of_ours(tmp_path: Path) -> None:
    directory = make_directory(tmp_path, "{{ raise_exception(messages[0].content) }}")

    assert answer(directory, "<|mdm_mask|>")[1].endswith(": <|mdm_mask|>")


@pytest.mark.parametrize(
    ("template", "named"),
    [
        pytest.param(RENDER, {}, id="tokenizer_config.json"),
        pytest.param(
            [{"name": "tool_use", "template": "t9"}, {"name": "default", "template": RENDER}],
            {},
            id="list of named templates",
        ),
        pytest.param(None, {"chat_template.jinja": RENDER}, id="chat_template.jinja"),
        pytest.param("t9", {"chat_template.jinja": RENDER}, id="chat_template.jinja wins"),
        pytest.param(
            None,
            {"chat_template.jinja": RENDER, "additional_chat_templates/tool_use.jinja": "t9"},
            id="additional templates",
        ),
        pytest.param("{% if tools %}t9{% else %}" + RENDER + "{% endif %}", {}, id="asks for tools"),
        pytest.param("{% set day = strftime_now('%d') %}" + RENDER, {}, id="asks for the date"),
        pytest.param("{% generation %}" + RENDER + "{% endgeneration %}", {}, id="marks the generation"),
    ],
)
def test_the_template_is_found_and_rendered(tmp_path: Path, template: Any, named: dict[str, str]) -> None:
    assert answer(make_directory(tmp_path, template, named=named)) == (200, [1, 5])


def test_without_any_template_completions_are_recommended(tmp_path: Path) -> None:
    status, message = answer(make_directory(tmp_path))

    assert (status, "use /v1/completions" in message) == (400, True)
