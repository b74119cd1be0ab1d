"""The embedded model's tokenizer: template phrases as single tokens, everything else byte by byte."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from training.phrases import all_phrases, longest_first

END_OF_TEXT = "<|endoftext|>"
MASK = "<|mdm_mask|>"
SYSTEM, USER, ASSISTANT, END_OF_TURN = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
CALL, END_OF_CALL = "<tool_call>", "</tool_call>"
RESULT, END_OF_RESULT = "<tool_response>", "</tool_response>"
FIRST_SPECIAL_TOKENS = (END_OF_TEXT, MASK, SYSTEM, USER, ASSISTANT, END_OF_TURN)
LATER_SPECIAL_TOKENS = (CALL, END_OF_CALL, RESULT, END_OF_RESULT)  # their ids come after those of all phrases
SPECIAL_TOKENS = (*FIRST_SPECIAL_TOKENS, *LATER_SPECIAL_TOKENS)

_TOOLS_BEGIN, _TOOLS_END = "# Tools\n<tools>\n", "</tools>\nA call of a tool is written "
_CALL_FORM = f'{CALL}\n{{"name": NAME, "arguments": OBJECT}}\n{END_OF_CALL}'
CHAT_TEMPLATE = (
    "{% set first = messages[0]['content'] if messages[0]['role'] == 'system' else none %}"
    "{% if tools %}<|system|>{% if first %}{{ first }}\n{% endif %}"
    f"{_TOOLS_BEGIN}{{% for tool in tools %}}{{{{ tool | tojson }}}}\n{{% endfor %}}"
    f"{_TOOLS_END}{_CALL_FORM}<|end|>"
    "{% endif %}"
    "{% for message in messages %}"
    "{% if tools and loop.first and first is not none %}"
    "{% elif message['role'] == 'tool' %}"
    "<|user|><tool_response>\n{{ message['content'] }}\n</tool_response><|end|>"
    "{% else %}"
    "<|{{ message['role'] }}|>{{ message['content'] or '' }}"
    "{% for call in message['tool_calls'] or [] %}"
    '<tool_call>\n{"name": {{ call.function.name | tojson }}, '
    '"arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|end|>"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer() -> Tokenizer:
    """Ids: special tokens, the 256 bytes, phrases, special tokens of calls. Lossless for any text."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    phrases = all_phrases()

    def spelled(text: str) -> str:
        return "".join(piece for piece, _ in byte_level.pre_tokenize_str(text))

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*FIRST_SPECIAL_TOKENS, *alphabet, *map(spelled, phrases), *LATER_SPECIAL_TOKENS]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    alternatives = "|".join(re.escape(phrase).replace("\\\n", "\n") for phrase in longest_first(phrases))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(alternatives), behavior="isolated"), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that must exist. Raises ValueError if it does not."""
    identifier = tokenizer.token_to_id(token)
    if identifier is None:
        raise ValueError(f"the tokenizer has no token {token!r}: build it with training.tokenizer")
    return int(identifier)


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json, as `transformers` reads them."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "mask_token": MASK,
        "additional_special_tokens": [SYSTEM, USER, ASSISTANT, END_OF_TURN, *LATER_SPECIAL_TOKENS],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def render_prompt(
    question: str, system: str | None = None, tools: Sequence[Mapping[str, Any]] = (), exchange: str = ""
) -> str:
    """What the chat template makes of one user turn; ``exchange`` is what has followed it."""
    if tools:
        listed = "".join(json.dumps(tool, ensure_ascii=False) + "\n" for tool in tools)
        before = f"{system}\n" if system else ""
        system = f"{before}{_TOOLS_BEGIN}{listed}{_TOOLS_END}{_CALL_FORM}"
    opening = "" if system is None else f"{SYSTEM}{system}{END_OF_TURN}"
    return f"{opening}{USER}{question}{END_OF_TURN}{exchange}{ASSISTANT}"


def render_exchange(call: str, result: str) -> str:
    """What the chat template makes of a call and the tool's result."""
    return f"{ASSISTANT}{call}{END_OF_TURN}{USER}{RESULT}\n{result}\n{END_OF_RESULT}{END_OF_TURN}"
