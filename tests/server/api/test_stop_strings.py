from __future__ import annotations

from dllm_server.api.text.stop_strings import StopScanner, StopStrings
from dllm_server.api.text.stream import ChoiceText
from hypothesis import given
from hypothesis import strategies as st

LETTERS = "ab \u00e9\u20ac"  # one to three bytes each
texts = st.text(LETTERS, max_size=40)
stop_lists = st.lists(st.text(LETTERS, min_size=1, max_size=5), max_size=6)


def decode_bytes(ids: object) -> str:
    return bytes(ids).decode("utf-8", "replace")  # type: ignore[call-overload, no-any-return]


def reference(text: str, stops: list[str]) -> tuple[str, int] | None:
    """What is shown, and where the first completed stop string ends, by trying every prefix."""
    for end in range(1, len(text) + 1):
        found = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: min(found)], end
    return None


def cut(tokens: list[int], sizes: list[int]) -> list[list[int]]:
    blocks, start = [], 0
    for size in [*sizes, len(tokens)]:
        blocks.append(tokens[start : start + size])
        start += size
    return [block for block in blocks if block]


@given(texts, stop_lists, st.lists(st.integers(1, 9), max_size=12), st.booleans())
def test_text_and_tokens_up_to_a_stop_string_do_not_depend_on_blocks(
    text: str, stops: list[str], sizes: list[int], shows_stop: bool
) -> None:
    tokens = list(text.encode())
    choice = ChoiceText(decode_bytes, StopStrings(stops), shows_stop=shows_stop)
    shown, accepted, stop = "", 0, None
    for block in cut(tokens, sizes):
        piece = choice.push(block)
        shown, accepted, stop = shown + piece.text, accepted + len(piece.token_texts), piece.stop
        if stop is not None:
            break
    else:
        shown += choice.flush().text

    expected = reference(text, stops)
    if expected is None:
        assert (shown, accepted, stop) == (text, len(tokens), None)
    else:
        before, end = expected
        assert (accepted, stop) == (len(text[:end].encode()), text[len(before) : end])
        assert shown == (text[:end] if shows_stop else before)


@given(texts, st.lists(st.integers(1, 9), max_size=12))
def test_token_texts_together_are_the_text(text: str, sizes: list[int]) -> None:
    choice = ChoiceText(decode_bytes, StopStrings([]))

    pieces = [choice.push(block) for block in cut(list(text.encode()), sizes)]

    assert "".join(part for piece in pieces for part in piece.token_texts) == text


def test_a_stop_string_across_blocks_is_never_shown() -> None:
    choice = ChoiceText(decode_bytes, StopStrings(["stop"]))

    pieces = [choice.push(b"go s"), choice.push(b"to"), choice.push(b"p on")]

    assert [piece.text for piece in pieces] == ["go ", "", ""]
    assert pieces[-1].stop == "stop"
    assert pieces[-1].token_texts == ["p"]


def test_the_beginning_of_a_stop_string_is_shown_once_it_cannot_become_one() -> None:
    scanner = StopScanner(StopStrings(["stop"]))

    assert [scanner.push("sto").text, scanner.push("ry").text] == ["", "story"]


def test_the_beginning_of_a_stop_string_at_the_end_is_shown() -> None:
    scanner = StopScanner(StopStrings(["stop"]))
    scanner.push("non-sto")

    assert scanner.flush() == "sto"
