"""Requests that real clients send, a row each: what is sent beside a small prompt, and what must come back.

A row says what is asked for in ``shows``, or the path of the parameter that is refused in ``names``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dllm_server.models.source import EMBEDDED_DIRECTORY
from tokenizers import Tokenizer

TOKENIZER = Tokenizer.from_file(str(EMBEDDED_DIRECTORY / "tokenizer.json"))
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
TOKENIZE = "/tokenize"

USER = {"role": "user", "content": "What is in Lyon?"}
PLAIN: dict[str, Any] = {
    CHAT: {"messages": [USER], "max_tokens": 8},
    COMPLETIONS: {"prompt": "<|user|>What is in Lyon?<|end|><|assistant|>", "max_tokens": 8},
    TOKENIZE: {},
}


@dataclass(frozen=True)
class Answer:
    """What came back: a body, or the chunks of a stream."""

    status: int
    headers: dict[str, str]
    body: Any = None
    chunks: list[Any] = field(default_factory=list)

    @property
    def choice(self) -> Any:
        return self.body["choices"][0]


@dataclass(frozen=True)
class Row:
    path: str
    body: dict[str, Any]
    shows: Callable[[Answer], object] = lambda _: True
    names: str | None = None  # parameter of the 400
    code: str | None = None

    @property
    def label(self) -> str:
        own = {name: value for name, value in self.body.items() if PLAIN[self.path].get(name) != value}
        return f"{self.path.split('/')[-2] if 'chat' in self.path else self.path.split('/')[-1]} {own}"[:150]


def chat(shows: Callable[[Answer], object] = lambda _: True, /, **body: Any) -> Row:
    return Row(CHAT, PLAIN[CHAT] | body, shows)


def completion(shows: Callable[[Answer], object] = lambda _: True, /, **body: Any) -> Row:
    return Row(COMPLETIONS, PLAIN[COMPLETIONS] | body, shows)


def said(shows: Callable[[Answer], object] = lambda _: True, /, **message: Any) -> Row:
    """An assistant's message that a client sends back."""
    return chat(shows, messages=[USER, {"role": "assistant", "content": "A bakery."} | message, USER])


def refused(path: str, names: str, code: str | None = None, /, **body: Any) -> Row:
    return Row(path, PLAIN[path] | body, names=names, code=code)


def refused_said(names: str, /, **message: Any) -> Row:
    messages = [USER, {"role": "assistant", "content": "A bakery."} | message, USER]
    return refused(CHAT, names, messages=messages)


def tokens(answer: Answer) -> list[int]:
    ids: list[int] = answer.choice["token_ids"]
    return ids


def every_chunk_has_usage(answer: Answer) -> bool:
    told = [chunk["usage"]["completion_tokens"] for chunk in answer.chunks]
    return len(told) > 1 and told == sorted(told) and told[0] > 0 and answer.chunks[-1]["choices"] != []


def last_chunk_alone_has_usage(answer: Answer) -> bool:
    *others, last = answer.chunks
    return last["usage"] is not None and last["choices"] == [] and not any(chunk["usage"] for chunk in others)


def usage_everywhere_and_at_the_end(answer: Answer) -> bool:
    return all(chunk["usage"] for chunk in answer.chunks) and answer.chunks[-1]["choices"] == []


def fills_its_length(answer: Answer) -> bool:
    return answer.choice["finish_reason"] == "length" and len(tokens(answer)) == 8


def fills_the_default(answer: Answer) -> bool:
    return answer.choice["finish_reason"] == "length" and len(tokens(answer)) == 256


def names_tokens_by_id(answer: Answer) -> bool:
    logprobs = answer.choice["logprobs"]
    names = logprobs["tokens"] if "tokens" in logprobs else [token["token"] for token in logprobs["content"]]
    return names == [f"token_id:{token_id}" for token_id in tokens(answer)]


def shows_special_tokens(answer: Answer) -> bool:
    return "<|endoftext|>" in answer.choice["text"]


def prompt_ends(text: str) -> Callable[[Answer], bool]:
    """Whether the prompt's tokens end with those of ``text``."""
    ending = TOKENIZER.encode(text, add_special_tokens=False).ids

    def shows(answer: Answer) -> bool:
        prompt = answer.body["tokens"] if "tokens" in answer.body else answer.choice["prompt_token_ids"]
        return prompt[-len(ending) :] == ending

    return shows


def has_no_mask(answer: Answer) -> bool:
    return TOKENIZER.token_to_id("<|mdm_mask|>") not in answer.choice["prompt_token_ids"]


def has_alternatives(count: int) -> Callable[[Answer], bool]:
    """Every token's, the likeliest first; a greedy token is the first of them."""

    def shows(answer: Answer) -> bool:
        for choice in answer.body["choices"]:
            content = choice["logprobs"]["content"]
            likeliest = [[other["logprob"] for other in token["top_logprobs"]] for token in content]
            if len(content) != len(choice["token_ids"]) or {len(told) for told in likeliest} != {count}:
                return False
            if any(told != sorted(told, reverse=True) for told in likeliest):
                return False
        return True

    return shows


def has_named_alternatives(count: int) -> Callable[[Answer], bool]:
    """Every token's by name, and the token itself with its own logprob among them."""

    def shows(answer: Answer) -> bool:
        logprobs = answer.choice["logprobs"]
        named = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
        return all(1 <= len(top) <= count + 1 and top[token] == logprob for token, logprob, top in named)

    return shows


def every_chunk_has_alternatives(answer: Answer) -> bool:
    told = [
        choice["logprobs"] for chunk in answer.chunks for choice in chunk["choices"] if choice["logprobs"]
    ]
    lists = [log.get("top_logprobs") or [token["top_logprobs"] for token in log["content"]] for log in told]
    return len(told) > 1 and all(top for tops in lists for top in tops)


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
OBFUSCATION = {"include_obfuscation": True}
HI = {"greeting": "Hi"}
FAST = {"block_length": 256, "unmasking": {"strategy": "quota", "value": 64}}
IDS = {"return_token_ids": True}

STREAMS = [
    chat(every_chunk_has_usage, stream=True, stream_options={"continuous_usage_stats": True}),
    completion(every_chunk_has_usage, stream=True, stream_options={"continuous_usage_stats": True}),
    chat(
        usage_everywhere_and_at_the_end,
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
    ),
    completion(last_chunk_alone_has_usage, stream=True, stream_options={"include_usage": True}),
    chat(stream=True, stream_options={"include_obfuscation": False}),
    chat(stream=True, stream_options={"include_usage": None, "continuous_usage_stats": None}),
    chat(stream=True, stream_options=None),
    chat(stream_options={}),
    chat(stream_options={"include_usage": False}),
    chat(stream=True, usage={"include": False}),
    refused(CHAT, "stream_options.include_obfuscation", stream=True, stream_options=OBFUSCATION),
    refused(CHAT, "stream_options.foo", stream=True, stream_options={"foo": 1}),
    refused(CHAT, "stream_options.include_usage", stream=True, stream_options={"include_usage": 1}),
    refused(CHAT, "usage", stream=True, usage={"include": True}),
]  # fmt: skip

HISTORY = [
    said(content=None),
    said(content=[{"type": "text", "text": "A"}, {"type": "text", "text": "bakery."}]),
    said(content=""),
    said(reasoning="Let me think.", reasoning_content="Let me think."),
    said(reasoning=None, reasoning_content=None, reasoning_details=[{"type": "reasoning.text", "text": "x"}]),
    said(thinking_blocks=[{"type": "thinking", "thinking": "x", "signature": "y"}]),
    said(refusal=None, audio=None, function_call=None, tool_calls=None, name=None),
    said(refusal="", tool_calls=[], annotations=[], id="msg_1", parsed=None),
    said(annotations=[{"type": "url_citation"}], provider_specific_fields={"a": 1}, cache_control={}),
    said(content=[{"type": "text", "text": "A bakery.", "cache_control": {"type": "ephemeral"}}]),
    said(content=[{"type": "text", "text": "A bakery.", "annotations": [], "prompt_cache_breakpoint": {}}]),
    said(prefix=False, partial=False),
    chat(messages=[{"role": "developer", "content": "Be short."}, USER]),
    chat(messages=[USER | {"name": "Ada", "id": "1", "tool_call_id": None, "tool_calls": None}]),
    chat(messages=[{"role": "system", "content": "Be short."}]),
    refused_said("messages.1.tool_calls", tool_calls=[CALL], content=None),
    refused_said("messages.1.tool_calls.0.type", tool_calls=[CALL | {"type": "custom"}]),
    refused_said("messages.1.tool_calls.0.mood", tool_calls=[CALL | {"mood": "good"}]),
    refused_said("messages.1.function_call", function_call={"name": "look", "arguments": "{}"}),
    refused_said("messages.1.refusal", refusal="I cannot."),
    refused_said("messages.1.audio", audio={"id": "a"}),
    refused_said("messages.1.prefix", prefix=True),
    refused_said("messages.1.mood", mood="good"),
    refused_said("messages.1.content.0.mood", content=[{"type": "text", "text": "x", "mood": "good"}]),
    refused_said("messages.1.content.0.text", content=[{"type": "text"}]),
    refused_said("messages.1.content.0.text", content=[{"type": "text", "text": None}]),
    refused_said("messages.1.content.0.type", content=[{"type": "refusal", "refusal": "no"}]),
    refused_said("messages.1.content", content=[]),
    refused_said("messages.1.content", content=5),
    refused(CHAT, "messages.0.content", messages=[{"role": "user", "content": None}]),
    refused(CHAT, "messages.0.content", messages=[{"role": "system"}]),
    refused(CHAT, "messages.0.content.2.type", messages=[USER | {"content": [
        {"type": "text", "text": "a"}, {"type": "text", "text": "b"}, {"type": "image_url", "image_url": {}},
    ]}]),
    refused(CHAT, "messages.0.content.0.type", messages=[USER | {"content": [{"type": "input_audio"}]}]),
    refused(CHAT, "messages.1.role", messages=[USER, {"role": "tool", "content": "4", "tool_call_id": "1"}]),
    refused(CHAT, "messages.0.role", messages=[{"role": "critic", "content": "x"}]),
    refused(CHAT, "messages.0.role", messages=[{"content": "x"}]),
    refused(CHAT, "messages.0.name", messages=[USER | {"name": 5}]),
    refused(CHAT, "messages.0", messages=["hello"]),
    refused(CHAT, "messages", messages=[]),
    refused(CHAT, "messages", messages=None),
]  # fmt: skip

NEUTRAL = [
    chat(chat_template_kwargs={}, add_generation_prompt=True, continue_final_message=False, echo=False),
    chat(include_stop_str_in_output=False, skip_special_tokens=True, spaces_between_special_tokens=True),
    chat(priority=0, min_tokens=0, stop_token_ids=[], ignore_eos=False, return_tokens_as_token_ids=False),
    chat(guided_json=None, guided_regex=None, guided_choice=None, guided_grammar=None),
    chat(structured_outputs=None, guided_decoding_backend="x", guided_whitespace_pattern=None),
    chat(add_special_tokens=False, documents=None, chat_template=None, mm_processor_kwargs=None),
    chat(allowed_token_ids=None, bad_words=[], logits_processors=None, prompt_logprobs=None),
    chat(truncate_prompt_tokens=None, use_beam_search=False, length_penalty=1.0, repetition_penalty=1.0),
    chat(min_p=0.0, top_k=-1, top_p=1.0, best_of=None, kv_transfer_params=None),
    chat(vllm_xargs={}, thinking_token_budget=None, repetition_detection=None, stream_interval=4),
    chat(return_token_ids=None, request_id="r", include_reasoning=True, logit_bias={"5": 0}),
    chat(regex=None, ebnf=None, stop_regex=None, no_stop_trim=False, lora_path=None, rid="r"),
    chat(session_params=None, session_id="s", bootstrap_host=None, custom_labels={"a": "b"}, extra_key="k"),
    chat(tools=[TOOL], tool_choice="none"),
    chat(separate_reasoning=False, stream_reasoning=True, return_hidden_states=False, custom_params=None),
    chat(cache_prompt=True, mirostat=0, mirostat_tau=5.0, repeat_penalty=1.0, repeat_last_n=64, id_slot=-1),
    chat(dry_multiplier=0.0, dry_base=1.75, xtc_probability=0, xtc_threshold=0.1, grammar="", n_probs=0),
    chat(watermark=False, typical_p=1.0, details=False, adapter_id=None, decoder_input_details=False),
    chat(provider={"order": ["x"]}, transforms=[], plugins=[], models=None, route="fallback"),
    chat(reasoning={"effort": "low"}, include_reasoning=False, trace={}, cache_control={"type": "ephemeral"}),
    chat(safe_prompt=False, thinking={"type": "disabled"}, enable_thinking=False, data_sources=[]),
    chat(reasoning_effort="high", verbosity="low", service_tier="flex", prediction={"type": "content"}),
    chat(prompt_cache_key="k", prompt_cache_retention="24h", prompt_cache_options={"mode": "implicit"}),
    chat(store=True, metadata={"a": "b"}, user="u", safety_identifier="s", parallel_tool_calls=False),
    chat(tools=[], tool_choice="auto", functions=[], function_call="none", modalities=["text"], audio=None),
    chat(response_format={"type": "text"}, frequency_penalty=0, presence_penalty=0.0, logit_bias={}, n=1),
    chat(logprobs=False, top_logprobs=0, seed=None, stop=None, stream=False),
    chat(temperature=None, diffusion=None, n=None, top_p=None, max_tokens=None, max_completion_tokens=8),
    chat(web_search_options=None, moderation=None, usage={"include": True}),
    completion(best_of=1, suffix="", logit_bias={}, echo=False, user="u", add_special_tokens=True),
    completion(n=2, best_of=2, temperature=0.5),
    completion(tools=[], tool_choice="auto", parallel_tool_calls=True, include_reasoning=False),
    refused(COMPLETIONS, "tools", "unsupported_parameter", tools=[TOOL]),
    completion(add_generation_prompt=True, chat_template_kwargs={}, continue_final_message=False),
    completion(frequency_penalty=0.0, presence_penalty=0.0, logprobs=None, suffix=None, min_p=0, priority=0),
    completion(diffusion={"unmasking": None, "block_length": None, "refresh_interval": None}),
    completion(diffusion={"unmasking": {"strategy": None, "value": None}}),
    Row(TOKENIZE, {"prompt": "The", "chat_template_kwargs": {}, "tools": None, "return_token_strs": False}),
    refused(CHAT, "tools", "unsupported_parameter", tools=[TOOL]),
    refused(CHAT, "tools.0.function.mood", tools=[TOOL | {"function": {"name": "look", "mood": "good"}}]),
    refused(CHAT, "tools.0.type", "unsupported_parameter", tools=[{"type": "web_search"}]),
    refused(CHAT, "tool_choice", tool_choice="required"),
    refused(CHAT, "tool_choice", "unsupported_parameter", tool_choice={"type": "function"}),
    refused(CHAT, "logit_bias", "unsupported_parameter", logit_bias={"5": 1}),
    refused(CHAT, "frequency_penalty", "unsupported_parameter", frequency_penalty=0.5),
    refused(CHAT, "frequency_penalty", "unsupported_parameter", frequency_penalty=False),
    refused(CHAT, "presence_penalty", "unsupported_parameter", presence_penalty=-1),
    refused(CHAT, "repetition_penalty", "unsupported_parameter", repetition_penalty=1.1),
    refused(CHAT, "min_p", "unsupported_parameter", min_p=0.1),
    refused(CHAT, "priority", "unsupported_parameter", priority=1),
    refused(CHAT, "echo", "unsupported_parameter", echo=True),
    refused(CHAT, "chat_template", "unsupported_parameter", chat_template="{{ messages }}"),
    refused(CHAT, "modalities", "unsupported_parameter", modalities=["text", "audio"]),
    refused(CHAT, "web_search_options", "unsupported_parameter", web_search_options={}),
    refused(CHAT, "use_beam_search", "unsupported_parameter", use_beam_search=True),
    refused(COMPLETIONS, "best_of", "unsupported_parameter", best_of=2),
    refused(CHAT, "cache_salt", cache_salt="tenant"),
    refused(COMPLETIONS, "cache_salt", cache_salt="tenant"),
    refused(COMPLETIONS, "suffix", "unsupported_parameter", suffix="end"),
    refused(COMPLETIONS, "prompt_logprobs", "unsupported_parameter", prompt_logprobs=1),
    refused(COMPLETIONS, "foo", foo=None),
    refused(COMPLETIONS, "diffusion.steps", diffusion={"steps": 5}),
    refused(COMPLETIONS, "diffusion.unmasking.steps", diffusion={"unmasking": {"steps": 5}}),
    refused(TOKENIZE, "foo", prompt="The", foo=1),
    refused(TOKENIZE, "messages.0.tool_calls", messages=[USER | {"tool_calls": [CALL]}]),
    refused(TOKENIZE, "tools", "unsupported_parameter", messages=[USER], tools=[TOOL]),
]  # fmt: skip

SUPPORTED = [
    chat(fills_the_default, max_tokens=None, ignore_eos=True, diffusion=FAST, **IDS),
    chat(temperature=0, seed=1234, stop=["\n\n", "</s>", "Question:", "Q:", "<|end|>"]),
    completion(prompt=[[60, 77], [70]], temperature=0, seed=1234, stop=["\n\n", "</s>", "Q:", "A:", "B:"]),
    chat(lambda answer: len(tokens(answer)) == 256, max_tokens=-1, ignore_eos=True, diffusion=FAST, **IDS),
    completion(lambda answer: len(tokens(answer)) == 16, max_tokens=-1, ignore_eos=True, **IDS),
    chat(lambda answer: len(tokens(answer)) == 3, max_tokens=-1, max_completion_tokens=3, **IDS),
    chat(fills_its_length, stop=[f"no such text {number}" for number in range(64)], ignore_eos=True, **IDS),
    chat(names_tokens_by_id, logprobs=True, return_tokens_as_token_ids=True, **IDS),
    completion(names_tokens_by_id, logprobs=0, return_tokens_as_token_ids=True, **IDS),
    completion(lambda answer: answer.choice["text"].endswith("a"), stop="a", include_stop_str_in_output=True),
    completion(lambda answer: answer.choice["stop_reason"] == "a", stop=["a", "zzz"]),
    completion(lambda answer: "a" not in answer.choice["text"], stop="a"),
    completion(skip_special_tokens=False),
    completion(seed=2**64 - 1),
    completion(seed=-(2**63)),
    chat(has_alternatives(20), logprobs=True, top_logprobs=20, **IDS),
    chat(has_alternatives(2), logprobs=True, top_logprobs=2, n=2, temperature=1, **IDS),
    chat(has_alternatives(0), logprobs=True, **IDS),
    chat(names_tokens_by_id, logprobs=True, top_logprobs=1, return_tokens_as_token_ids=True, **IDS),
    chat(every_chunk_has_alternatives, stream=True, logprobs=True, top_logprobs=3),
    completion(has_named_alternatives(5), logprobs=5, **IDS),
    completion(has_named_alternatives(1), logprobs=1, **IDS),
    completion(has_named_alternatives(0), logprobs=0, **IDS),
    completion(every_chunk_has_alternatives, stream=True, logprobs=2),
    completion(lambda answer: answer.choice["stop_reason"] == 340, stop_token_ids=[340], **IDS),
    completion(lambda answer: 340 not in tokens(answer), stop_token_ids=[7, 340, 340], **IDS),
    completion(lambda answer: len(tokens(answer)) == 8, stop_token_ids=[340], min_tokens=8, **IDS),
    completion(lambda answer: len(tokens(answer)) >= 3, stop="a", min_tokens=3, **IDS),
    completion(lambda answer: len(tokens(answer)) == 8, prompt="The", min_tokens=8, **IDS),
    completion(lambda answer: answer.choice["stop_reason"] is None, prompt="The"),
    completion(lambda answer: answer.choice["text"] == "", stop_token_ids=[341], ignore_eos=True),
    completion(shows_special_tokens, prompt="The", ignore_eos=True, skip_special_tokens=False),
    completion(lambda answer: not shows_special_tokens(answer), prompt="The", ignore_eos=True),
    chat(prompt_ends("Bonjour<|assistant|>"), chat_template_kwargs={"greeting": "Bonjour"}, **IDS),
    chat(prompt_ends("<|end|>low<|assistant|>"), reasoning_effort="low", **IDS),
    chat(prompt_ends("Lyon?<|end|>"), add_generation_prompt=False, **IDS),
    chat(prompt_ends("Lyon?"), continue_final_message=True, **IDS),
    chat(prompt_ends("Lyon?"), continue_final_message=True, add_generation_prompt=False, **IDS),
    chat(prompt_ends("<|assistant|>"), chat_template_kwargs={"unread": [1, {"a": None}]}, **IDS),
    chat(has_no_mask, chat_template_kwargs={"greeting": "<|mdm_mask|>"}, **IDS),
    said(lambda answer: True, content=None, reasoning_content="Hm."),
    Row(TOKENIZE, {"messages": [USER], "add_generation_prompt": False}, prompt_ends("Lyon?<|end|>")),
    Row(TOKENIZE, {"messages": [USER], "continue_final_message": True}, prompt_ends("Lyon?")),
    Row(TOKENIZE, {"messages": [USER], "chat_template_kwargs": HI}, prompt_ends("Hi<|assistant|>")),
    refused(CHAT, "messages", chat_template_kwargs={"forbidden": "swearing"}),
    refused(CHAT, "chat_template_kwargs.tokenize", chat_template_kwargs={"tokenize": True}),
    refused(CHAT, "chat_template_kwargs.messages", chat_template_kwargs={"messages": []}),
    refused(CHAT, "chat_template_kwargs.chat_template", chat_template_kwargs={"chat_template": "x"}),
    refused(CHAT, "chat_template_kwargs", chat_template_kwargs={"greeting": "\ud800"}),
    refused(CHAT, "chat_template_kwargs", chat_template_kwargs={"greeting": float("nan")}),
    refused(CHAT, "chat_template_kwargs", chat_template_kwargs=[]),
    refused(CHAT, "continue_final_message", continue_final_message=True, add_generation_prompt=True),
    refused(COMPLETIONS, "chat_template_kwargs", chat_template_kwargs={"greeting": "x"}),
    refused(CHAT, "top_logprobs", logprobs=True, top_logprobs=21),
    refused(CHAT, "top_logprobs", logprobs=True, top_logprobs=-1),
    refused(CHAT, "top_logprobs", top_logprobs=1),
    refused(COMPLETIONS, "logprobs", logprobs=6),
    refused(COMPLETIONS, "logprobs", logprobs=-1),
    refused(COMPLETIONS, "logprobs", logprobs=True),
    refused(COMPLETIONS, "top_logprobs", top_logprobs=1),
    refused(COMPLETIONS, "min_tokens", min_tokens=9),
    refused(CHAT, "min_tokens", min_tokens=9),
    refused(COMPLETIONS, "min_tokens", min_tokens=-1),
    refused(COMPLETIONS, "stop_token_ids.1", stop_token_ids=[5, 512]),
    refused(COMPLETIONS, "stop_token_ids.0", stop_token_ids=[-1]),
    refused(COMPLETIONS, "stop_token_ids.0", stop_token_ids=["5"]),
    refused(COMPLETIONS, "stop_token_ids", stop_token_ids=5),
    refused(COMPLETIONS, "stop_token_ids", stop_token_ids=list(range(64, 128))),
    refused(COMPLETIONS, "seed", seed=2**64),
    refused(COMPLETIONS, "seed", seed=-(2**63) - 1),
    refused(COMPLETIONS, "seed", seed=1.0),
    refused(COMPLETIONS, "max_tokens", max_tokens=-2),
    refused(COMPLETIONS, "max_tokens", max_tokens=True),
    refused(CHAT, "max_completion_tokens", max_completion_tokens=0),
    refused(COMPLETIONS, "stop", stop=["a"] * 65),
    refused(COMPLETIONS, "stop.1", stop=["a", ""]),
    refused(COMPLETIONS, "stop.0", stop=[None]),
    refused(COMPLETIONS, "stop.0", stop=["\ud800"]),
    refused(COMPLETIONS, "include_stop_str_in_output", include_stop_str_in_output="yes"),
]  # fmt: skip

UNMASKING = [
    completion(fills_its_length, diffusion={"unmasking": {"strategy": strategy}}, ignore_eos=True, **IDS)
    for strategy in ("quota", "threshold", "factor", "entropy_bound")
] + [
    refused(COMPLETIONS, "diffusion.unmasking.strategy", diffusion={"unmasking": {"strategy": "magic"}}),
    refused(COMPLETIONS, "diffusion.unmasking", diffusion={"unmasking": {"strategy": "quota", "value": 0.9}}),
]


def says(pattern: str) -> Callable[[Answer], bool]:
    """Whole texts, which their grammars end."""

    def shows(answer: Answer) -> bool:
        text = answer.choice["message"]["content"] if "message" in answer.choice else answer.choice["text"]
        return re.fullmatch(pattern, text) is not None and answer.choice["finish_reason"] == "stop"

    return shows


def streams(pattern: str) -> Callable[[Answer], bool]:
    def shows(answer: Answer) -> bool:
        choices = [choice for chunk in answer.chunks for choice in chunk["choices"]]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        return re.fullmatch(pattern, text) is not None and choices[-1]["finish_reason"] == "stop"

    return shows


def is_cut(answer: Answer) -> bool:
    return answer.choice["finish_reason"] == "length" and answer.choice["message"]["content"][0] == "{"


POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}, "is": {"type": "boolean"}},
    "required": ["x", "is"],
    "additionalProperties": False,
}
A_POINT = r'\{"x":\d,"is":(true|false)\}'
AS_POINT = {"type": "json_schema", "json_schema": {"name": "point", "schema": POINT, "strict": True}}
LONG: dict[str, Any] = {"max_tokens": 48}
UNFOLLOWED = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {"type": "string"}}}}
HALF = {"type": "json_schema", "json_schema": {"name": "x"}}
ODD = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "mood": 1}}
ENDLESS = {"allOf": [{"type": "string", "pattern": f".*{chr(97 + place)}.*"} for place in range(24)]}
HUGE = {"enum": [f"{number:032}" for number in range(30_000)]}
DEEP = '{"items":' * 9_000 + "{}" + "}" * 9_000
AB = {"structured_outputs": {"choice": ["yes", "no"]}}

STRUCTURED = [
    chat(says(A_POINT), response_format=AS_POINT, **LONG),
    chat(says(A_POINT), response_format=AS_POINT, temperature=1.0, seed=5, **LONG),
    chat(says(A_POINT), response_format=AS_POINT, n=2, temperature=1.0, seed=5, **LONG),
    chat(streams(A_POINT), response_format=AS_POINT, stream=True, **LONG),
    chat(is_cut, response_format=AS_POINT, max_tokens=3),
    chat(is_cut, response_format={"type": "json_object"}, max_tokens=3),
    completion(says(A_POINT), response_format=AS_POINT, **LONG),
    completion(says(A_POINT), response_format=AS_POINT, logprobs=2, **LONG),
    completion(says(A_POINT), structured_outputs={"json": POINT}, **LONG),
    completion(says(A_POINT), structured_outputs={"json": json.dumps(POINT), "regex": None}, **LONG),
    completion(says("yes|no"), **AB),
    completion(says("[ab]{3}"), structured_outputs={"regex": "[ab]{3}"}),
    completion(says("[ab]{3}"), structured_outputs={"grammar": "root ::= [ab] [ab] [ab]"}),
    completion(says("[ab]{3}"), structured_outputs={"grammar": "start: /[ab]{3}/"}),
    completion(says(A_POINT), guided_json=POINT, **LONG),
    completion(says("[ab]{3}"), guided_regex="[ab]{3}", guided_decoding_backend="xgrammar"),
    completion(says("yes|no"), guided_choice=["yes", "no"]),
    completion(says("[ab]{3}"), guided_grammar="root ::= [ab]{3}"),
    completion(says(A_POINT), json_schema=json.dumps(POINT), **LONG),
    completion(says("[ab]{3}"), regex="[ab]{3}"),
    completion(says("[ab]{3}"), ebnf="root ::= [ab]{3}"),
    chat(structured_outputs={}, regex=None, guided_json=None),
    chat(structured_outputs=False),
    refused(CHAT, "response_format.json_schema.schema", "grammar", response_format=UNFOLLOWED),
    refused(CHAT, "response_format.type", response_format={"type": "xml"}),
    refused(CHAT, "response_format.json_schema", response_format={"type": "json_schema"}),
    refused(CHAT, "response_format.json_schema.schema", response_format=HALF),
    refused(CHAT, "response_format.json_schema.mood", response_format=ODD),
    refused(CHAT, "response_format.mood", response_format={"type": "text", "mood": 1}),
    refused(COMPLETIONS, "guided_regex", "grammar", guided_regex="("),
    refused(COMPLETIONS, "regex", "grammar", regex="("),
    refused(COMPLETIONS, "ebnf", "grammar", ebnf="root ::= ("),
    refused(COMPLETIONS, "json_schema", "grammar", json_schema="{"),
    refused(COMPLETIONS, "guided_choice", guided_choice=[]),
    refused(COMPLETIONS, "structured_outputs.choice", "grammar", structured_outputs={"choice": []}),
    refused(COMPLETIONS, "structured_outputs.regex", structured_outputs={"regex": 5}),
    refused(COMPLETIONS, "structured_outputs.structural_tag", structured_outputs={"structural_tag": "{}"}),
    refused(COMPLETIONS, "guided_json", guided_json=["a"]),
    refused(COMPLETIONS, "guided_choice", guided_regex="a", guided_choice=["b"]),
    refused(COMPLETIONS, "guided_json", "grammar", guided_json=ENDLESS),
    refused(COMPLETIONS, "guided_json", "grammar", guided_json=HUGE),
    refused(COMPLETIONS, "guided_json", "grammar", guided_json=DEEP),
    refused(COMPLETIONS, "ignore_eos", regex="a", ignore_eos=True),
]

TABLE = [*STREAMS, *HISTORY, *NEUTRAL, *SUPPORTED, *UNMASKING, *STRUCTURED]
