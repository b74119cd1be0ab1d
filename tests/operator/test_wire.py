"""Text on its way to the API server and into status."""

from __future__ import annotations

import json

import pytest
import yaml
from dllm_operator.cluster.text import readable, readable_document
from dllm_operator.cluster.wire import yaml_bytes
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    "text",
    ["\N{GRINNING FACE}", "\x00\x1b\x7f\x85\x9f", "a\u2028b\u2029c", "\ufeff\ufffe\uffff", 'é\t\n"\\/: - #'],
    ids=["emoji", "control", "separators", "no characters", "plain"],
)
def test_a_body_means_the_same_to_readers_of_json_and_of_yaml(text: str) -> None:
    body = yaml_bytes({text: [text, {"a": text}]})

    assert json.loads(body) == {text: [text, {"a": text}]}
    assert yaml.safe_load(body) == {text: [text, {"a": text}]}
    assert b"\\ud8" not in body


@given(st.text(st.characters(exclude_categories=())))
def test_every_text_can_be_sent(text: str) -> None:
    body = yaml_bytes({"text": text})

    assert yaml.safe_load(body)["text"] == "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain, \N{GRINNING FACE} and\ttwo\nlines", "plain, \N{GRINNING FACE} and\ttwo\nlines"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07shown", "shown"),
        ("a\x00b\x7fc\x9bd", "a\ufffdb\ufffdc\ufffdd"),
        ("half \ud83d of a pair", "half \ufffd of a pair"),
        ("abc\u202egnp.exe", "abc\ufffdgnp.exe"),
        ("\x1b", ""),
    ],
)
def test_status_says_what_a_terminal_can_show(text: str, said: str) -> None:
    assert readable(text) == said


@given(st.text(st.characters(exclude_categories=())))
def test_readable_text_stays_so(text: str) -> None:
    said = readable(text)

    assert readable(said) == said
    said.encode()  # to UTF-8, which half of a pair cannot be
    assert not any(c < " " and c not in "\t\n" for c in said)


def test_a_document_is_readable_throughout() -> None:
    document = {"conditions": ({"message": "a\x00"}, "b\x1b[1m"), "replicas": 3, "gone": None}

    assert readable_document(document) == {
        "conditions": [{"message": "a\ufffd"}, "b"],
        "replicas": 3,
        "gone": None,
    }
