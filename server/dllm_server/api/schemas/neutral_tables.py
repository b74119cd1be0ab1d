"""Parameters of OpenAI's API and of other servers that this one lacks, with the values that change nothing.

Null changes nothing anywhere. A hint (how hard to think, where to route, what to label) changes nothing about
a correct answer, whatever its value. Any other value would change the answer, so it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dllm_server.api.schemas.neutral import (
    ABSENT,
    EMPTY_LIST,
    EMPTY_OBJECT,
    HINT,
    OFF,
    ONE,
    ZERO,
    Neutral,
    is_same,
    only,
)


def _is_all_zero(bias: Any, _: Mapping[str, Any]) -> bool:
    return isinstance(bias, Mapping) and all(is_same(value, 0) for value in bias.values())


def _is_number_of_choices(best_of: Any, body: Mapping[str, Any]) -> bool:
    return is_same(best_of, body.get("n") or 1)


def _is_in_the_answer_anyway(usage: Any, body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    is_told = not body.get("stream") or (
        isinstance(options, Mapping) and options.get("include_usage") is True
    )
    return isinstance(usage, Mapping) and (is_told or not usage.get("include"))


_OPENAI = {
    "audio": ABSENT,
    "best_of": Neutral(_is_number_of_choices, "leave it out, or send the value of n"),
    "frequency_penalty": ZERO,
    "function_call": only("none", "auto"),
    "functions": EMPTY_LIST,
    "logit_bias": Neutral(_is_all_zero, "leave it out, or send {}"),
    "metadata": HINT,
    "modalities": only(["text"]),
    "moderation": ABSENT,
    "prediction": HINT,  # speeds up what is answered anyway
    "presence_penalty": ZERO,
    "prompt_cache_key": HINT,
    "prompt_cache_options": HINT,
    "prompt_cache_retention": HINT,
    "reasoning_effort": HINT,
    "safety_identifier": HINT,
    "service_tier": HINT,
    "store": HINT,
    "suffix": only(""),
    "user": HINT,
    "verbosity": HINT,
    "web_search_options": ABSENT,
}

_VLLM = {
    "add_special_tokens": OFF,
    "allowed_token_ids": ABSENT,
    "bad_words": EMPTY_LIST,
    "chat_template": ABSENT,  # a request's own template would run in the server
    "documents": EMPTY_LIST,
    "guided_decoding_backend": HINT,
    "guided_whitespace_pattern": HINT,
    "kv_transfer_params": EMPTY_OBJECT,
    "length_penalty": ONE,
    "logits_processors": EMPTY_LIST,
    "max_repetition_pattern_size": ZERO,
    "min_p": ZERO,
    "min_repetition_pattern_size": ZERO,
    "mm_processor_kwargs": EMPTY_OBJECT,
    "priority": ZERO,
    "prompt_embeds": ABSENT,
    "prompt_logprobs": ABSENT,
    "repetition_detection": ABSENT,
    "repetition_min_count": ZERO,
    "repetition_penalty": ONE,
    "request_id": HINT,
    "spaces_between_special_tokens": HINT,  # slow tokenizers only, which are not served
    "stream_interval": HINT,
    "thinking_token_budget": ABSENT,
    "truncate_prompt_tokens": ABSENT,
    "use_beam_search": OFF,
    "vllm_xargs": EMPTY_OBJECT,
}

_SGLANG = {
    "bootstrap_host": ABSENT,
    "bootstrap_port": ABSENT,
    "bootstrap_room": ABSENT,
    "custom_labels": HINT,
    "custom_logit_processor": ABSENT,
    "custom_params": EMPTY_OBJECT,
    "data_parallel_rank": ABSENT,
    "disagg_prefill_dp_rank": ABSENT,
    "extra_key": HINT,
    "images_config": EMPTY_OBJECT,
    "input_ids": ABSENT,
    "lora_path": ABSENT,
    "max_dynamic_patch": ABSENT,
    "min_dynamic_patch": ABSENT,
    "ngram_corpus_id": ABSENT,
    "no_stop_trim": OFF,
    "return_cached_tokens_details": OFF,
    "return_hidden_states": OFF,
    "return_meta_info": OFF,
    "return_prompt_token_ids": OFF,
    "return_routed_experts": OFF,
    "rid": HINT,
    "routed_dp_rank": ABSENT,
    "routed_experts_start_len": ZERO,
    "session_id": HINT,
    "session_params": EMPTY_OBJECT,
    "stop_regex": EMPTY_LIST,
    "stream_reasoning": HINT,
    "task": ABSENT,
    "use_audio_in_video": OFF,
}

# Samplers of llama.cpp, TGI and their like. What only shapes a sampler that is off changes nothing.
_SAMPLERS = {
    "dry_allowed_length": HINT,
    "dry_base": HINT,
    "dry_multiplier": ZERO,
    "dry_penalty_last_n": HINT,
    "dry_sequence_breakers": HINT,
    "dynatemp_exponent": HINT,
    "dynatemp_range": ZERO,
    "epsilon_cutoff": ZERO,
    "eta_cutoff": ZERO,
    "mirostat": ZERO,
    "mirostat_eta": HINT,
    "mirostat_tau": HINT,
    "no_repeat_ngram_size": ZERO,
    "repeat_last_n": HINT,
    "repeat_penalty": ONE,
    "tfs_z": ONE,
    "top_a": ZERO,
    "top_n_sigma": only(-1, 0),
    "typical_p": ONE,
    "watermark": OFF,
    "xtc_probability": ZERO,
    "xtc_threshold": HINT,
}

_LLAMA_CPP_AND_OLLAMA = {
    "cache_prompt": HINT,
    "format": only(""),
    "grammar": only(""),
    "id_slot": only(-1),
    "keep_alive": HINT,
    "lora": EMPTY_LIST,
    "min_keep": ZERO,
    "n_keep": ZERO,
    "n_predict": only(-1),
    "n_probs": ZERO,
    "options": EMPTY_OBJECT,
    "parse_tool_calls": HINT,
    "post_sampling_probs": OFF,
    "raw": OFF,
    "reasoning_format": HINT,
    "response_fields": EMPTY_LIST,
    "return_progress": OFF,
    "return_tokens": OFF,
    "samplers": ABSENT,
    "t_max_predict_ms": only(0, -1),
    "think": OFF,
    "thinking_forced_open": OFF,
    "timings_per_token": OFF,
}

_TGI = {
    "adapter_id": ABSENT,
    "decoder_input_details": OFF,
    "details": OFF,
    "do_sample": ABSENT,
    "guideline": ABSENT,
    "return_full_text": OFF,
    "tool_prompt": HINT,
    "top_n_tokens": ZERO,
    "truncate": ABSENT,
}

# OpenRouter and providers whose clients are pointed elsewhere.
_PROVIDERS = {
    "cache_control": HINT,
    "data_sources": EMPTY_LIST,
    "deferred": OFF,
    "enable_search": OFF,
    "enable_thinking": OFF,
    "incremental_output": HINT,
    "models": EMPTY_LIST,
    "plugins": EMPTY_LIST,
    "prompt_mode": ABSENT,
    "prompt_truncate_len": ABSENT,
    "provider": HINT,
    "random_seed": ABSENT,
    "raw_output": OFF,
    "reasoning": HINT,
    "route": HINT,
    "safe_prompt": OFF,
    "search_parameters": only({"mode": "off"}),
    "thinking": only({"type": "disabled"}),
    "thinking_budget": ABSENT,
    "trace": HINT,
    "transforms": EMPTY_LIST,
    "usage": Neutral(_is_in_the_answer_anyway, "use stream_options.include_usage"),
}

_IN_BODY = _OPENAI | _VLLM | _SGLANG | _SAMPLERS | _LLAMA_CPP_AND_OLLAMA | _TGI | _PROVIDERS

IN_CHAT: Mapping[str, Neutral] = MappingProxyType(
    _IN_BODY
    | {
        "echo": OFF,
    }
)

IN_COMPLETIONS: Mapping[str, Neutral] = MappingProxyType(
    _IN_BODY
    | {
        "add_generation_prompt": HINT,  # there is no template
        "chat_template_kwargs": EMPTY_OBJECT,
        "continue_final_message": OFF,
        "include_reasoning": HINT,
        "parallel_tool_calls": HINT,
        "separate_reasoning": HINT,
        "tool_choice": only("none", "auto"),
        "tools": EMPTY_LIST,
        "top_logprobs": ZERO,
    }
)

IN_STREAM_OPTIONS: Mapping[str, Neutral] = MappingProxyType({"include_obfuscation": OFF})

IN_TOKENIZE: Mapping[str, Neutral] = MappingProxyType(
    {
        "chat_template": ABSENT,
        "mm_processor_kwargs": EMPTY_OBJECT,
        "return_token_strs": OFF,
    }
)

# What an answer carries besides its text, which clients send back with the conversation.
IN_MESSAGES: Mapping[str, Neutral] = MappingProxyType(
    {
        "annotations": HINT,
        "audio": ABSENT,
        "cache_control": HINT,
        "function_call": ABSENT,
        "id": HINT,
        "images": EMPTY_LIST,
        "parsed": HINT,  # the text once more, as the client read it
        "partial": OFF,
        "prefix": OFF,
        "provider_specific_fields": HINT,
        "reasoning_details": HINT,
        "refusal": only(""),
        "thinking": HINT,
        "thinking_blocks": HINT,
        "tools": EMPTY_LIST,
    }
)

IN_TOOLS: Mapping[str, Neutral] = MappingProxyType({"cache_control": HINT})

IN_TOOL_CALLS: Mapping[str, Neutral] = MappingProxyType(
    {
        "extra_content": HINT,
        "index": HINT,  # of a streamed answer's
        "provider_specific_fields": HINT,
    }
)

IN_TEXT_PARTS: Mapping[str, Neutral] = MappingProxyType(
    {
        "annotations": HINT,
        "cache_control": HINT,
        "citations": HINT,
        "id": HINT,
        "logprobs": HINT,
        "prompt_cache_breakpoint": HINT,
    }
)


def _asks_for_no_logprobs(include: Any, _: Mapping[str, Any]) -> bool:
    return isinstance(include, list) and "message.output_text.logprobs" not in include


IN_RESPONSES: Mapping[str, Neutral] = MappingProxyType(
    {
        "background": OFF,
        "context_management": EMPTY_LIST,
        "conversation": ABSENT,
        "frequency_penalty": ZERO,
        "include": Neutral(_asks_for_no_logprobs, "leave message.output_text.logprobs out"),
        "max_tool_calls": HINT,  # of tools that a server runs itself: there are none
        "moderation": ABSENT,
        "presence_penalty": ZERO,
        "previous_response_id": ABSENT,
        "prompt": ABSENT,
        "prompt_cache_key": HINT,
        "prompt_cache_options": HINT,
        "prompt_cache_retention": HINT,
        "safety_identifier": HINT,
        "service_tier": HINT,
        "top_logprobs": ZERO,
        "truncation": only("disabled"),
        "user": HINT,
    }
)

IN_RESPONSE_ITEMS: Mapping[str, Neutral] = MappingProxyType(
    {
        "created_by": HINT,
        "encrypted_content": HINT,
        "id": HINT,
        "phase": HINT,
        "status": HINT,
        "summary": HINT,
    }
)

IN_RESPONSE_TOOLS: Mapping[str, Neutral] = MappingProxyType(
    {
        "allowed_callers": only(["direct"]),
        "async": OFF,
        "cache_control": HINT,
        "defer_loading": OFF,
        "output_schema": HINT,
    }
)

IN_RESPONSE_TEXT: Mapping[str, Neutral] = MappingProxyType({"verbosity": HINT})

IN_REASONING: Mapping[str, Neutral] = MappingProxyType(
    {"context": HINT, "generate_summary": HINT, "mode": HINT, "summary": HINT}
)

IN_RESPONSE_STREAM_OPTIONS: Mapping[str, Neutral] = MappingProxyType({"include_obfuscation": OFF})

IN_MESSAGES_API: Mapping[str, Neutral] = MappingProxyType(
    {
        "cache_control": HINT,
        "container": ABSENT,
        "context_management": ABSENT,
        "inference_geo": HINT,
        "mcp_servers": EMPTY_LIST,
        "metadata": HINT,
        "output_config": EMPTY_OBJECT,
        "service_tier": HINT,
        "thinking": only({"type": "disabled"}),
    }
)

IN_MESSAGE_BLOCKS: Mapping[str, Neutral] = MappingProxyType(
    {
        "cache_control": HINT,
        "caller": HINT,
        "citations": HINT,
        "data": HINT,
        "is_error": HINT,
        "signature": HINT,
    }
)

IN_MESSAGE_TOOLS: Mapping[str, Neutral] = MappingProxyType(
    {
        "allowed_callers": only(["direct"]),
        "cache_control": HINT,
        "defer_loading": OFF,
        "eager_input_streaming": HINT,
        "input_examples": HINT,
    }
)
