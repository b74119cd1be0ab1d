from __future__ import annotations

from collections.abc import Sequence

import pytest
from dllm_server.api.text.detokenizer import REPLACEMENT, Decode, Detokenizer
from dllm_server.models.tokenizer import load_tokenizer
from hypothesis import assume, given
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
@given(tokens=st.lists(st.integers(0, 255), max_size=200))
def test_the_texts_of_the_tokens_together_are_the_text_of_all(name: str, tokens: list[int]) -> None:
    assert "".join(pushed(DECODERS[name], tokens)) == DECODERS[name](tokens)


@given(tokens=st.lists(st.integers(0, 7), max_size=200))
def test_byte_fallback_gives_the_text_of_all_where_that_is_valid(tokens: list[int]) -> None:
    """One stray byte makes this decoder take back characters before it; what was given stays given."""
    text = DECODERS["sentencepiece"](tokens)
    assume(REPLACEMENT not in text)

    assert "".join(pushed(DECODERS["sentencepiece"], tokens)) == text


@given(st.text(max_size=120))
def test_text_of_any_script_survives_tokens_that_are_parts_of_characters(text: str) -> None:
    assert "".join(pushed(DECODERS["bytes"], list(text.encode()))) == text


def test_half_a_character_is_held_back_until_the_other_half_comes() -> None:
    first, second = "\u00e9".encode()

    assert pushed(DECODERS["bytes"], [65, first, second]) == ["A", "", "\u00e9", ""]


def test_half_a_character_at_the_end_is_shown_as_a_replacement() -> None:
    assert pushed(DECODERS["bytes"], [65, 0xC3]) == ["A", "", REPLACEMENT]


def test_a_long_text_is_not_decoded_again_and_again() -> None:
    longest = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return DECODERS["words"](ids)

    pushed(decode, [1] * 800)

    assert longest < 100
