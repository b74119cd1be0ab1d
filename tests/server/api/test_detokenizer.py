from __future__ import annotations

from collections.abc import Sequence

import pytest
from dllm_server.api.text.detokenizer import REPLACEMENT, Decode, Detokenizer
from dllm_server.models.source import EMBEDDED_DIRECTORY
from dllm_server.models.tokenizer import load_tokenizer
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scripted_engine import FIXTURE
from tokenizers import Tokenizer, decoders, models


def byte_tokens() -> Decode:
    """Token b is the byte b, as in byte-level BPE: characters may span tokens, and bytes may be no UTF-8."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + index) for index, byte in enumerate(others)
    }
    tokenizer = Tokenizer(models.BPE(vocab={letters[byte]: byte for byte in range(256)}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return lambda ids: tokenizer.decode(list(ids))


def sentencepiece_tokens() -> Decode:
    """Words with a leading space that the start of the text loses, as in Llama's tokenizers."""
    words = ["\u2581a", "\u2581bc", "d", "\u2581", "<0xE2>", "<0x82>", "<0xAC>", "<0x41>"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, "d"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return lambda ids: tokenizer.decode([index % len(words) for index in ids])


def word_tokens() -> Decode:
    """The fixture's: words joined by spaces, special tokens (1000, 1001) without text."""
    tokenizer = load_tokenizer(FIXTURE)
    return lambda ids: tokenizer.decode([index + 800 for index in ids])


DECODERS = {"bytes": byte_tokens(), "sentencepiece": sentencepiece_tokens(), "words": word_tokens()}


def pushed(decode: Decode, tokens: Sequence[int]) -> list[str]:
    detokenizer = Detokenizer(decode)
    return [*(detokenizer.push(token) for token in tokens), detokenizer.flush()]


@pytest.mark.parametrize("name", ["bytes", "words"])
@settings(deadline=None)
@given(tokens=st.lists(st.integers(0, 255), max_size=200))
def test_the_texts_of_the_tokens_together_are_the_text_of_all(name: str, tokens: list[int]) -> None:
    assert "".join(pushed(DECODERS[name], tokens)) == DECODERS[name](tokens)


@settings(deadline=None)
@given(tokens=st.lists(st.integers(0, 7), max_size=200))
def test_byte_fallback_gives_the_text_of_all_where_that_is_valid(tokens: list[int]) -> None:
    """One stray byte makes this decoder take back characters before it; what was given stays given."""
    text = DECODERS["sentencepiece"](tokens)
    assume(REPLACEMENT not in text)

    assert "".join(pushed(DECODERS["sentencepiece"], tokens)) == text


@settings(deadline=None)
@given(st.text(max_size=120))
def test_text_of_any_script_survives_tokens_that_are_parts_of_characters(text: str) -> None:
    assert "".join(pushed(DECODERS["bytes"], list(text.encode()))) == text


def test_half_a_character_is_held_back_until_the_other_half_comes() -> None:
    first, second = "\u00e9".encode()

    assert pushed(DECODERS["bytes"], [65, first, second]) == ["A", "", "\u00e9", ""]


def test_half_a_character_at_the_end_is_shown_as_a_replacement() -> None:
    assert pushed(DECODERS["bytes"], [65, 0xC3]) == ["A", "", REPLACEMENT]


def embedded(*, skip_special_tokens: bool = True) -> Decode:
    tokenizer = load_tokenizer(EMBEDDED_DIRECTORY)
    return lambda ids: tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)


def fixture(*, skip_special_tokens: bool = True) -> Decode:
    tokenizer = load_tokenizer(FIXTURE)
    return lambda ids: tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)


WHOLE = {
    "embedded": (embedded(), 386),
    "embedded with special tokens": (embedded(skip_special_tokens=False), 386),
    "fixture": (fixture(), 1024),
    "fixture with special tokens": (fixture(skip_special_tokens=False), 1024),
}
RUNS = st.lists(st.tuples(st.integers(0, 1023), st.integers(1, 90)), max_size=12)


@pytest.mark.parametrize("name", WHOLE)
@settings(deadline=None)
@given(tokens=st.lists(st.integers(0, 1023), max_size=200), runs=RUNS)
def test_served_tokenizers_give_the_text_of_all_tokens(
    name: str, tokens: list[int], runs: list[tuple[int, int]]
) -> None:
    """Random tokens and long runs of one token: bytes, white space, special ones."""
    decode, vocabulary = WHOLE[name]
    tokens = [token % vocabulary for token in [*tokens, *(t for t, length in runs for _ in range(length))]]

    assert "".join(pushed(decode, tokens)) == decode(tokens)


@settings(deadline=None)
@given(tokens=st.lists(st.sampled_from([0, 5, *range(6, 262)]), min_size=60, max_size=300))
def test_bytes_between_special_tokens_are_put_together(tokens: list[int]) -> None:
    decode, _ = WHOLE["embedded"]

    assert "".join(pushed(decode, tokens)) == decode(tokens)


# A replacement character of the text's own cannot be told from a byte that is not (yet) UTF-8.
TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[REPLACEMENT]), min_size=1, max_size=3
)


@settings(deadline=None)
@given(runs=st.lists(st.tuples(TEXT, st.integers(1, 40)), max_size=8))
def test_long_runs_of_byte_fallback_give_the_text_of_all(runs: list[tuple[str, int]]) -> None:
    words = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, words[0]))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    text = "".join(piece * count for piece, count in runs)

    assert "".join(pushed(lambda ids: tokenizer.decode(list(ids)), list(text.encode()))) == text


ENDLESS = {
    "words": ("words", [1]),
    "special tokens": ("words", [200]),
    "a word, then special tokens": ("words", [1, *[200] * 400]),
    "white space": ("bytes", [32]),
    "stray bytes": ("bytes", [0x80]),
    "bytes that begin characters": ("bytes", [0xF0]),
    "characters of three bytes": ("bytes", list("\u20ac".encode())),
    "white space of sentencepiece": ("sentencepiece", [3]),
    "stray bytes of sentencepiece": ("sentencepiece", [5]),
    "bytes that begin characters of sentencepiece": ("sentencepiece", [4]),
    "characters of three bytes of sentencepiece": ("sentencepiece", [4, 5, 6]),
    "a character taken back": ("sentencepiece", [4, 5, 6, 5]),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_the_work_of_a_token_is_bounded_whatever_comes(name: str) -> None:
    decoder, pattern = ENDLESS[name]
    decoded = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal decoded
        decoded += len(ids)
        return DECODERS[decoder](ids)

    tokens = (pattern * 2040)[:2040]
    pushed(decode, tokens)

    assert decoded < 150 * len(tokens)


@pytest.mark.parametrize("name", ["white space", "stray bytes", "words"])
def test_endless_text_is_shown_while_it_comes(name: str) -> None:
    decoder, pattern = ENDLESS[name]
    texts = pushed(DECODERS[decoder], pattern * 500)

    assert all(texts[3:500])
    assert "".join(texts) == DECODERS[decoder](pattern * 500)
