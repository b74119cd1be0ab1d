"""A request's plan: which engine requests answer it, decided before any of them is sent."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from dllm_server.api.answers.likelihood import LikelihoodPlan
from dllm_server.api.schemas.errors import invalid_request, past_context, validation_error
from dllm_server.api.schemas.requests import GenerationRequest
from dllm_server.api.schemas.structured import AskedGrammar
from dllm_server.api.text.speech import PLAIN, Markup
from dllm_server.api.text.stop_strings import StopStrings
from dllm_server.engine.requests.decoding import misfit, with_edits
from dllm_server.engine.requests.messages import MOST_STOP_TOKENS, Diffusion, Generate, ModelInfo, Sampling
from dllm_server.settings import DiffusionSettings

_SEED_BITS = 64
_SEED_MASK = (1 << _SEED_BITS) - 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens, the text that echo gives back, what an answer to it may hold besides content, and what it is
    held to. ``unenforced`` names the tools whose calls are not held to their schemas."""

    token_ids: list[int]
    text: str = ""
    markup: Markup = PLAIN
    grammar: AskedGrammar | None = None
    unenforced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """How the prompt is scored, and under which id in the engine."""

    request_id: str
    likelihood: LikelihoodPlan
    top_logprobs: int


@dataclass(frozen=True, slots=True)
class ChoicePlan:
    """One choice of the answer and the engine request that makes it, None where nothing is generated.
    ``scoring`` is there where the prompt is to be scored first."""

    index: int
    generate: Generate | None
    scoring: ScoringPlan | None
    prompt: Prompt
    stops: StopStrings
    stop_token_ids: frozenset[int] = frozenset()  # the request's own, which are told as the reason
    shows_stop: bool = False
    skips_special_tokens: bool = True
    is_block_causal: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a request: the served model and the server's decoding settings."""

    model: ModelInfo
    diffusion: DiffusionSettings

    @property
    def max_tokens(self) -> int:
        """Most tokens of prompt and completion together."""
        return min(self.model.max_model_len, self.model.max_request_tokens)


def grammar_of(request: GenerationRequest, prompt: Prompt) -> AskedGrammar | None:
    """What the answer to a prompt is held to."""
    return prompt.grammar or request.asked_grammar


def plan_choices(
    request: GenerationRequest,
    prompts: Sequence[Prompt],
    limits: Limits,
    *,
    request_id: str,
) -> list[ChoicePlan]:
    """``n`` choices for each prompt, in order; ``ApiError`` 400 names what is out of bounds."""
    diffusion = merge_diffusion(request.diffusion, limits)
    settings = Diffusion.of(diffusion)
    seed = request.seed if request.seed is not None else secrets.randbits(_SEED_BITS)
    # The client chooses ``request_id`` and may choose one that is open: the engine's ids are drawn.
    engine_id = f"{request_id}-{secrets.token_hex(8)}"
    stops = StopStrings(request.stop)
    if request.scores_prompt and limits.model.blocks is not None:
        raise invalid_request(
            "echo with logprobs: a prompt is scored with everything behind a block masked, and this "
            "block-causal model sees nothing behind a block: its prompts are not scored",
            param="echo",
        )
    if request.cache_salt is not None and limits.model.blocks is None:
        raise invalid_request(
            "cache_salt: this model is bidirectional, its requests share no K/V: leave it out",
            param="cache_salt",
        )
    eos = frozenset() if request.ignore_eos else frozenset(limits.model.eos_token_ids)
    stop_token_ids = _stop_token_ids(request, eos, limits)
    plans: list[ChoicePlan] = []
    for prompt in prompts:
        length = _completion_length(prompt, limits, request)
        if request.min_tokens > length:
            raise invalid_request(
                f"min_tokens {request.min_tokens} exceeds the {length} tokens that may be generated: lower "
                "it or raise max_tokens",
                param="min_tokens",
            )
        held_to = grammar_of(request, prompt)
        for _ in range(request.n):
            index = len(plans)
            scoring = None
            if request.scores_prompt:
                likelihood = LikelihoodPlan.of(len(prompt.token_ids), diffusion, request.seed)
                scoring = ScoringPlan(f"{engine_id}-{index}", likelihood, request.alternatives)
            sampling = Sampling(
                temperature=request.temperature,
                top_p=request.top_p,
                top_k=min(max(request.top_k, 0), limits.model.vocab_size),
                seed=choice_seed(seed, index),
            )
            generate = Generate(
                request_id=f"{engine_id}-{index}",
                prompt=prompt.token_ids,
                max_tokens=length,
                sampling=sampling,
                diffusion=settings,
                stop_token_ids=stop_token_ids,
                min_tokens=request.min_tokens,
                top_logprobs=request.alternatives,
                wants_canvas=request.includes_canvas,
                cache_salt=request.cache_salt or "",
                wants_confidence=request.includes_canvas_confidence,
                grammar=None if held_to is None else held_to.grammar,
                grammar_after=None if held_to is None else held_to.after,
            )
            plans.append(
                ChoicePlan(
                    index=index,
                    generate=generate if length else None,
                    scoring=scoring,
                    prompt=prompt,
                    stops=stops,
                    stop_token_ids=frozenset(stop_token_ids) - eos,
                    shows_stop=request.include_stop_str_in_output,
                    skips_special_tokens=request.skip_special_tokens,
                    is_block_causal=limits.model.blocks is not None,
                )
            )
    return plans


def choice_seed(seed: int, index: int) -> int:
    """A seed for each choice, in [0, 2^64): the request's own bits for the first, unrelated ones for the
    others."""
    if index == 0:
        return seed & _SEED_MASK
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) & _SEED_MASK


def _stop_token_ids(request: GenerationRequest, eos: frozenset[int], limits: Limits) -> list[int]:
    """The request's stop tokens and the model's EOS."""
    for place, token_id in enumerate(request.stop_token_ids):
        if token_id >= limits.model.vocab_size:
            raise invalid_request(
                f"stop_token_ids.{place}: token id {token_id} is past the vocabulary's "
                f"{limits.model.vocab_size - 1}",
                param=f"stop_token_ids.{place}",
            )
    stop_token_ids = sorted({*request.stop_token_ids, *eos})
    if len(stop_token_ids) > MOST_STOP_TOKENS:
        raise invalid_request(
            f"stop_token_ids: with EOS {len(stop_token_ids)} different tokens end the request, but "
            f"{MOST_STOP_TOKENS} may: send fewer",
            param="stop_token_ids",
        )
    return stop_token_ids


def merge_diffusion(given: dict[str, Any], limits: Limits) -> DiffusionSettings:
    """The request's ``diffusion`` object over the server's settings, validated whole."""
    defaults = limits.diffusion.model_dump(mode="json")
    merged = defaults | given
    unmasking = given.get("unmasking")
    if isinstance(unmasking, dict):
        own = defaults["unmasking"]
        if unmasking.get("strategy", own["strategy"]) != own["strategy"]:
            del own["value"]  # it belongs to the server's strategy: another one has a default of its own
        merged["unmasking"] = own | unmasking
    try:
        settings = DiffusionSettings.model_validate_json(json.dumps(merged, allow_nan=False), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        raise validation_error(dict(problem), ("diffusion", *problem["loc"])) from None
    except ValueError:
        raise invalid_request("diffusion: NaN and Infinity are not JSON", param="diffusion") from None
    settings = with_edits(settings, limits.model.blocks)
    if (found := misfit(given, settings, limits.model.blocks)) is not None:
        field, why = found
        raise invalid_request(f"diffusion.{field}: {why}: leave it out", param=f"diffusion.{field}")
    if settings.retention_ratio > limits.model.retention_ratio:
        raise invalid_request(
            f"diffusion.retention_ratio {settings.retention_ratio:g} exceeds the server's "
            f"{limits.model.retention_ratio:g}: lower it, or raise the server's --retention-ratio",
            param="diffusion.retention_ratio",
        )
    return settings


def refuse_mask(token_ids: Sequence[int], limits: Limits, path: str) -> None:
    """``ApiError`` 400 names the place of the mask in the prompt at ``path``, where it would be a hole."""
    mask = limits.model.mask_token_id
    if mask in token_ids:
        param = f"{path}.{token_ids.index(mask)}"
        raise invalid_request(f"{param}: {mask} is the mask token, which no prompt may hold", param=param)


def tokens_left(count: int, limits: Limits, request: GenerationRequest) -> int:
    """How many tokens may follow a prompt of so many; ``ApiError`` 400 for one that is empty or too long."""
    param = request.prompt_param
    if count == 0:
        raise invalid_request(f"{param} is empty: give at least one token", param=param)
    left = limits.max_tokens - count
    needed = 0 if request.completion_limit == 0 else 1
    if left < needed:
        remedy = f"shorten it to {limits.max_tokens - needed}"
        problem = f"the prompt is too long: {param} has {count} tokens: {remedy}"
        raise past_context(limits.max_tokens, problem, param=param)
    return left


def _completion_length(prompt: Prompt, limits: Limits, request: GenerationRequest) -> int:
    """The request's own limit; without one the default, or what the context leaves if that is less."""
    prompt_param, max_tokens = request.prompt_param, request.completion_limit
    count = len(prompt.token_ids)
    left = tokens_left(count, limits, request)
    if (largest := max(prompt.token_ids)) >= limits.model.vocab_size:
        raise invalid_request(
            f"{prompt_param} holds token id {largest}, but the vocabulary ends at "
            f"{limits.model.vocab_size - 1}",
            param=prompt_param,
        )
    if max_tokens is None:
        return min(request.default_max_tokens, left)
    if max_tokens > left:
        remedy = f"lower {request.limit_param} to {left} or shorten the prompt"
        problem = f"{prompt_param} has {count} and {request.limit_param} is {max_tokens}: {remedy}"
        raise past_context(limits.max_tokens, problem, param=request.limit_param)
    return max_tokens
