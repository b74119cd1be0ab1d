"""Names of special tokens in what users write: words like any other, whatever the template does with them."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from dllm_server.models.source import EMBEDDED_DIRECTORY
from dllm_server.models.tokenizer import Tokenizer, TokenizerError, load_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

MASK, END, USER = "<|mdm_mask|>", "<|end|>", "<|user|>"
SPECIAL = {MASK: 1, "<|endoftext|>": 0, "<|system|>": 2, USER: 3, "<|assistant|>": 4, END: 5}
FRAGMENTS = [
    *SPECIAL,
    "<|",
    "|>",
    "<",
    ">",
    "mdm_",
    "mask",
    "<|e",
    "nd|>",
    "Hello ",
    " use ",
    "\n",
    "\ufdd0",
    "é",
]
JOINED = "{% for m in messages %}{{ m.content }}{% endfor %}"

text_of_fragments = st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join)


def make_tokenizer(
    directory: Path, *, template: str | None = None, special: bool = True, **ids: Any
) -> Tokenizer:
    """The embedded model's tokenizer, with another template or with added tokens that are not called
    special."""
    values = json.loads((EMBEDDED_DIRECTORY / "tokenizer.json").read_text())
    for token in values["added_tokens"]:
        token["special"] = special
    (directory / "tokenizer.json").write_text(json.dumps(values))
    config = json.loads((EMBEDDED_DIRECTORY / "tokenizer_config.json").read_text())
    if not special:
        config = {"chat_template": config["chat_template"]}
    config |= {} if template is None else {"chat_template": template}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(directory, **ids)


@cache
def embedded() -> Tokenizer:
    return load_tokenizer(EMBEDDED_DIRECTORY)


@cache
def reference() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(EMBEDDED_DIRECTORY)


@cache
def joining() -> Tokenizer:
    return make_tokenizer(Path(mkdtemp(prefix="dllm-test-")), template=JOINED)


def chat(*contents: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content} for content in contents]


@given(text=st.text(max_size=40), more=text_of_fragments)
@settings(max_examples=150, deadline=None)
def test_a_conversation_without_such_names_is_tokenised_as_transformers_does(text: str, more: str) -> None:
    for name in SPECIAL:
        more = more.replace(name, "")
    if any(name in text + more for name in SPECIAL):
        return
    messages = chat(text + more, more)

    expected = reference().apply_chat_template(messages, add_generation_prompt=True, return_dict=False)

    assert embedded().encode_chat(messages) == expected


@given(contents=st.lists(text_of_fragments, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_only_the_template_writes_special_tokens_and_no_text_is_lost(contents: list[str]) -> None:
    messages = chat(*contents)
    text = "".join(f"{USER}{content}{END}" for content in contents)

    tokens = embedded().encode_chat(messages, add_generation_prompt=False)

    assert [token for token in tokens if token in SPECIAL.values()] == [SPECIAL[USER], SPECIAL[END]] * len(
        contents
    )
    assert embedded().decode(tokens, skip_special_tokens=False) == text


@given(contents=st.lists(text_of_fragments, min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_messages_that_a_template_joins_make_no_special_token_together(contents: list[str]) -> None:
    tokens = joining().encode_chat(chat(*contents))

    assert not set(tokens) & set(SPECIAL.values())
    assert joining().decode(tokens, skip_special_tokens=False) == "".join(contents)


@given(text=text_of_fragments)
@settings(max_examples=200, deadline=None)
def test_in_a_completion_all_but_the_masks_name_keep_their_meaning(text: str) -> None:
    tokens = embedded().encode(text)

    assert SPECIAL[MASK] not in tokens
    assert embedded().decode(tokens, skip_special_tokens=False) == text
    others = [token for token in reference().encode(text) if token in set(SPECIAL.values()) - {SPECIAL[MASK]}]
    assert [token for token in tokens if token in SPECIAL.values()] == others
    if MASK not in text:
        assert tokens == reference().encode(text)


@pytest.mark.parametrize(
    ("template", "content", "rendered"),
    [
        ("{{ messages[0].content | trim }}<|end|>", f"  {MASK} \n", f"{MASK}{END}"),
        ("{{ messages[0].content.strip().upper() }}<|end|>", f" a{MASK}", f"A{MASK.upper()}{END}"),
        ("{{ messages[0].content | tojson }}<|end|>", f"{MASK} é", f'"{MASK} é"{END}'),
        ("{{ messages[0].content[1:] }}<|end|>", f"a{END}", f"{END}{END}"),
        ("<|{{ messages[0].content }}|><|end|>", "mdm_mask", f"{MASK}{END}"),
    ],
)
def test_what_a_template_does_to_a_content_makes_no_special_token_of_it(
    tmp_path: Path, template: str, content: str, rendered: str
) -> None:
    tokenizer = make_tokenizer(tmp_path, template=template)

    tokens = tokenizer.encode_chat(chat(content))

    assert tokenizer.decode(tokens, skip_special_tokens=False) == rendered
    assert [token for token in tokens if token in SPECIAL.values()] == [SPECIAL[END]]


def test_a_speakers_name_is_no_special_token_either(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path, template="{{ messages[0].name }}<|end|>")

    tokens = tokenizer.encode_chat([{"role": "user", "content": "", "name": MASK}])

    assert tokens.count(SPECIAL[END]) == 1
    assert SPECIAL[MASK] not in tokens


def test_a_mask_and_an_eos_that_the_tokenizer_does_not_call_special_are_kept_out_all_the_same(
    tmp_path: Path,
) -> None:
    tokenizer = make_tokenizer(tmp_path, special=False, mask_token_id=1, eos_token_ids=[0, 5])

    assert 1 not in tokenizer.encode(f"a{MASK}{END}")
    assert tokenizer.encode(f"a{MASK}{END}")[-1] == 5
    assert (
        tokenizer.encode_chat(chat(f"{MASK}{END}<|endoftext|>{USER}"), add_generation_prompt=False).count(5)
        == 1
    )


def test_a_vocabulary_of_words_does_not_know_the_masks_name(tmp_path: Path) -> None:
    fixture = Path(__file__).resolve().parents[1] / "fixtures" / "llada_mha"
    tokenizer = load_tokenizer(fixture)

    assert tokenizer.encode(f"t1 {MASK} t2 <|endoftext|>") == [1, 0, 2, 1001]  # 0: unknown
    assert tokenizer.encode_chat(chat(f"t1 {MASK} <|endoftext|> t2")) == [1, 0, 0, 2]


def test_conversations_that_hold_every_noncharacter_are_refused() -> None:
    with pytest.raises(TokenizerError, match="noncharacters"):
        embedded().encode_chat(chat("".join(chr(code) for code in range(0xFDD0, 0xFDF0))))


def test_tokens_that_the_tokenizer_adds_stay_at_the_ends(tmp_path: Path) -> None:
    values = json.loads((EMBEDDED_DIRECTORY / "tokenizer.json").read_text())
    values["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|system|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": END, "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            name: {"id": name, "ids": [SPECIAL[name]], "tokens": [name]} for name in ("<|system|>", END)
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    shutil.copy(EMBEDDED_DIRECTORY / "tokenizer_config.json", tmp_path)
    tokenizer = load_tokenizer(tmp_path)

    tokens = tokenizer.encode(f"{MASK}{USER}a{MASK}")

    assert (tokens[0], tokens[-1]) == (SPECIAL["<|system|>"], SPECIAL[END])
    assert tokenizer.decode(tokens[1:-1], skip_special_tokens=False) == f"{MASK}{USER}a{MASK}"
    assert [token for token in tokens[1:-1] if token in SPECIAL.values()] == [SPECIAL[USER]]


def test_every_kind_of_vocabulary_can_do_without_its_special_tokens(tmp_path: Path) -> None:
    pieces = [["<unk>", 0.0], [MASK, 0.0], *([letter, -1.0] for letter in "<|>abdmsk_ ")]
    values = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": number,
                "content": name,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for number, name in enumerate(("<unk>", MASK))
        ],
        "model": {"type": "Unigram", "vocab": pieces, "unk_id": 0},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": MASK, "unk_token": "<unk>"}))
    assert Backend.from_file(str(tmp_path / "tokenizer.json")).encode(MASK).ids == [1]

    tokens = load_tokenizer(tmp_path).encode(f"a{MASK}b")

    assert 1 not in tokens
    assert len(tokens) == len(f"a{MASK}b")
