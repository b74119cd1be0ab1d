"""Thoughts, content and calls in a text, whatever its pieces are."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from dllm_server.api.text.parts import Called, Part, Said, Thought
from dllm_server.api.text.speech import Markup, Speech, Thinking
from dllm_server.api.text.tool_calls import parser_of
from dllm_server.settings import ToolCallParser
from hypothesis import given
from hypothesis import strategies as st

HERMES = Markup(calls=ToolCallParser.HERMES, tools=frozenset({"look"}))
LLAMA = Markup(calls=ToolCallParser.LLAMA3_JSON, tools=frozenset({"look", "sum"}))
MAY_THINK = Markup(thinking=Thinking.MAY)
IS_THINKING = Markup(thinking=Thinking.OPEN)
THINKS_AND_CALLS = Markup(thinking=Thinking.MAY, calls=ToolCallParser.HERMES)
LOOK = '{"name": "look", "arguments": {"at": "Lyon"}}'
LOOKED = Called("look", '{"at": "Lyon"}')


def read(markup: Markup, *pieces: str) -> list[Part]:
    """The parts of a text, adjacent ones of a kind joined."""
    speech = Speech(markup)
    told = [part for piece in pieces for part in speech.push(piece)]
    joined: list[Part] = []
    for part in [*told, *speech.flush()]:
        match part, joined[-1] if joined else None:
            case Said(text), Said(before):
                joined[-1] = Said(before + text)
            case Thought(text), Thought(before):
                joined[-1] = Thought(before + text)
            case _:
                joined.append(part)
    return joined


@pytest.mark.parametrize(
    ("markup", "text", "parts"),
    [
        (HERMES, f"<tool_call>{LOOK}</tool_call>", [LOOKED]),
        (HERMES, f"<tool_call>\n{LOOK}\n</tool_call>\n<tool_call>{LOOK}</tool_call>\n", [LOOKED, LOOKED]),
        (HERMES, f"I look.\n\n<tool_call>{LOOK}</tool_call> Done.", [Said("I look."), LOOKED, Said("Done.")]),
        (HERMES, '<tool_call>{"name": "look"}</tool_call>', [Called("look", "{}")]),
        (HERMES, '<tool_call>{"arguments": null, "name": "look"}</tool_call>', [Called("look", "{}")]),
        (HERMES, '<tool_call>{"name": "x", "arguments": "{}"}</tool_call>', [Called("x", "{}")]),
        (HERMES, '<tool_call>{"name": "x", "parameters": {"a": 1e400}}</tool_call>', None),
        (HERMES, '<tool_call>{"name": "look", "arguments": {</tool_call>', None),
        (HERMES, '<tool_call>{"name": "look", "arguments": [1]}</tool_call>', None),
        (HERMES, '<tool_call>{"name": "", "arguments": {}}</tool_call>', None),
        (HERMES, '<tool_call>{"name": 5}</tool_call> and more \n', None),
        (HERMES, f"<tool_call>{'[' * 5000}</tool_call>", None),
        (HERMES, f"<tool_call>{LOOK}", None),
        (HERMES, "a < b, <tool_ and <tool_call", None),
        (HERMES, "</tool_call> \n", None),
        (HERMES, " Nothing to call.\n\n", None),
        (HERMES, "", []),
        (HERMES, f"<tool_call>no <tool_call>{LOOK}</tool_call>", [Said("<tool_call>no"), LOOKED]),
        (LLAMA, '{"name": "look", "parameters": {"at": "Lyon"}}', [LOOKED]),
        (LLAMA, f"\n<|python_tag|>{LOOK}; {LOOK}\n", [LOOKED, LOOKED]),
        (LLAMA, '{"name": "sum", "parameters": {"a": "}\\"{"}}', [Called("sum", '{"a": "}\\"{"}')]),
        (LLAMA, f"{LOOK} That is it.", [LOOKED, Said("That is it.")]),
        (LLAMA, f"{LOOK}; <|py", [LOOKED, Said("<|py")]),
        (LLAMA, '{"name": "Ada", "parameters": {}}', None),
        (LLAMA, '{"city": "Lyon"} {', None),
        (LLAMA, '{"name": "look", "parameters": {"at": ', None),
        (LLAMA, "<|python_tag|>print(1)", None),
        (LLAMA, f"I look: {LOOK}", None),
        (LLAMA, "  \n", None),
        (MAY_THINK, "<think>\nHm.\n\n</think>\n\n4 \n", [Thought("Hm."), Said("4 \n")]),
        (MAY_THINK, "\n<think></think>4", [Said("4")]),
        (MAY_THINK, "<think>Hm. </thin", [Thought("Hm. </thin")]),
        (MAY_THINK, " 4 <think>no</think>", None),
        (MAY_THINK, "<thin", None),
        (IS_THINKING, "Hm.\n</think>\n4", [Thought("Hm."), Said("4")]),
        (IS_THINKING, "<think>Hm.</think>4", [Thought("Hm."), Said("4")]),
        (IS_THINKING, "Hm. ", [Thought("Hm.")]),
        (THINKS_AND_CALLS, f"<think><tool_call>x</think>\n<tool_call>{LOOK}</tool_call>",
         [Thought("<tool_call>x"), LOOKED]),
        (Markup(), f"<think>x</think><tool_call>{LOOK}</tool_call>", None),
    ],
)  # fmt: skip
def test_a_text_has_its_parts(markup: Markup, text: str, parts: list[Part] | None) -> None:
    """None: all of it is content, to the letter."""
    expected = [Said(text)] if parts is None else parts

    assert read(markup, text) == expected
    assert read(markup, *text) == expected


PIECES = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<|python_tag|>", LOOK, '{"name": "look", ',
          "{", "}", '"', "\\", "; ", "\n", " ", "<", "Hm.", "é"]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES)).map("".join)
MARKUPS = st.builds(
    Markup,
    thinking=st.sampled_from(Thinking),
    tells_thoughts=st.booleans(),
    calls=st.sampled_from([None, *ToolCallParser]),
    tools=st.just(frozenset({"look"})),
    is_one_call=st.booleans(),
)


@given(MARKUPS, TEXTS, st.data())
def test_the_parts_do_not_depend_on_where_a_text_is_cut(
    markup: Markup, text: str, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text))).map(sorted))
    pieces = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]

    assert read(markup, *pieces) == read(markup, text)


@given(MARKUPS, TEXTS)
def test_every_call_is_one_that_clients_can_read(markup: Markup, text: str) -> None:
    calls = [part for part in read(markup, text) if isinstance(part, Called)]

    assert all(isinstance(json.loads(call.arguments), dict) for call in calls)
    assert len(calls) <= (1 if markup.is_one_call else text.count(LOOK))


@given(st.sampled_from([HERMES, LLAMA]), TEXTS)
def test_what_is_no_call_is_content(markup: Markup, text: str) -> None:
    """White space and semicolons beside calls are layout; all else comes back."""
    parts = read(markup, text)
    written = "".join(LOOK if isinstance(part, Called) else part.text for part in parts)
    layout = ["<tool_call>", "</tool_call>", "<|python_tag|>", ";", " ", "\n"]
    calls = sum(isinstance(part, Called) for part in parts)

    if not calls:
        assert written == text
    for marker in layout:
        written, text = written.replace(marker, ""), text.replace(marker, "")
    assert written == text


def test_an_answer_of_one_call_ends_with_it() -> None:
    markup = Markup(calls=ToolCallParser.HERMES, is_one_call=True)
    text = f"I look. <tool_call>{LOOK}</tool_call><tool_call>{LOOK}</tool_call>"

    assert read(markup, text) == [Said("I look."), LOOKED]


def test_thoughts_may_be_left_out() -> None:
    assert read(Markup(thinking=Thinking.MAY, tells_thoughts=False), "<think>Hm.</think>4") == [Said("4")]


@pytest.mark.parametrize(
    ("template", "parser"),
    [
        ("{{ '<tool_call>' }}{{ call.function | tojson }}</tool_call>", ToolCallParser.HERMES),
        ('{"name": function name, "parameters": dictionary of its arguments}', ToolCallParser.LLAMA3_JSON),
        ("<tool_call>\n<function=name>", None),
        ("{% for tool in tools %}{{ tool }}{% endfor %}", None),
        ("", None),
    ],
)
def test_the_parser_is_chosen_from_the_template(template: str, parser: ToolCallParser | None) -> None:
    assert parser_of(template) is parser
