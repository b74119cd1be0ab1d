import json
import random
from pathlib import Path

import dllm_server
import pytest
from dllm_server.evaluation.calls import CLOSING, OPENING
from dllm_server.evaluation.tasks import FAMILIES, Family, make_items
from dllm_server.evaluation.words import words_from_reasoning_gym
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from training.model import ModelShape
from training.phrases import JSON_PARTS, check_against_content
from training.tasks.mixture import make_curriculum
from training.tokenizer import (
    FIRST_SPECIAL_TOKENS,
    LATER_SPECIAL_TOKENS,
    SPECIAL_TOKENS,
    build_tokenizer,
    render_exchange,
    render_prompt,
)

EMBEDDED = Path(dllm_server.__file__).parent / "models" / "embedded"
TOKENIZER = build_tokenizer()


def test_the_shipped_tokenizer_is_the_one_the_code_builds() -> None:
    shipped = json.loads((EMBEDDED / "tokenizer.json").read_text())

    assert shipped == json.loads(TOKENIZER.to_str())


@given(st.text())
def test_any_text_survives_encoding(text: str) -> None:
    if not any(token in text for token in SPECIAL_TOKENS):
        assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


def test_task_texts_survive_encoding() -> None:
    mixture = make_curriculum(words_from_reasoning_gym()).whole
    rng = random.Random(5)
    for _ in range(500):
        _, example = mixture.sample(rng)
        for text in (example.question, example.answer):
            assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


def test_letters_and_digits_of_content_are_single_tokens() -> None:
    tokens = TOKENIZER.encode("Spell this word backward (example: sun -> nus): letter").tokens

    assert tokens[-6:] == list("letter")


def test_no_phrase_occurs_in_the_word_lists() -> None:
    check_against_content(words_from_reasoning_gym())


def test_recall_contexts_reach_about_a_thousand_tokens() -> None:
    longest = max(len(TOKENIZER.encode(item.question).ids) for item in make_items("recall", 200, seed=1))

    assert 900 < longest < 1_100


def test_answers_and_their_end_fit_the_canvas() -> None:
    for family in FAMILIES:
        for item in make_items(family, 300, seed=11):
            assert len(TOKENIZER.encode(item.answer).ids) < item.max_tokens


def test_transformers_renders_the_prompt_that_training_saw() -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(EMBEDDED))
    messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Hi\n"}]

    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    assert prompt == render_prompt("Hi\n", system="Answer briefly.")
    assert Tokenizer.from_file(str(EMBEDDED / "tokenizer.json")).encode(prompt).ids == tokenizer.encode(
        prompt, add_special_tokens=False
    )


@pytest.mark.parametrize("system", [None, "Answer briefly."])
def test_transformers_renders_tools_and_a_call_as_training_saw_them(system: str | None) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(EMBEDDED))
    item = make_items(Family.TOOL_CALLS, 1)[0]
    called = json.loads(item.answer.removeprefix(OPENING).removesuffix(CLOSING))
    messages = [
        *([] if system is None else [{"role": "system", "content": system}]),
        {"role": "user", "content": item.question},
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": called}]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "clear"}'},
    ]
    asked = {"tools": list(item.tools), "add_generation_prompt": True, "tokenize": False}

    before = tokenizer.apply_chat_template(messages[:-2], **asked)
    after = tokenizer.apply_chat_template(messages, **asked)

    assert before == render_prompt(item.question, system, item.tools)
    exchange = render_exchange(item.answer, '{"sky": "clear"}')
    assert after == render_prompt(item.question, system, item.tools, exchange)


def test_the_ids_of_earlier_tokens_stay() -> None:
    """Weights that were trained before tools were known can be trained on."""
    later = {TOKENIZER.token_to_id(token) for token in (*JSON_PARTS, *LATER_SPECIAL_TOKENS)} - {None}

    assert min(later) >= 386
    assert TOKENIZER.get_vocab_size() <= ModelShape().vocab_size
    assert all(TOKENIZER.token_to_id(token) == index for index, token in enumerate(FIRST_SPECIAL_TOKENS))


def test_two_tools_take_less_than_three_hundred_tokens() -> None:
    items = make_items(Family.TOOL_CALLS, 100, seed=2)

    assert max(len(TOKENIZER.encode(render_prompt(i.question, tools=i.tools)).ids) for i in items) < 300
