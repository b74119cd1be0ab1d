from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from dllm_server.memory import (
    GIB,
    MIB,
    Budget,
    BudgetError,
    EngineLimits,
    ModelShape,
    kept_context_tokens,
    lifetime_pages,
    plan_budget,
)
from hypothesis import given
from hypothesis import strategies as st

LLADA_8B = ModelShape("LLaDA-8B", 4096, 32, 32, 32, 128, 12288, 126464, 4096, False, False, 2)
DREAM_7B = ModelShape("Dream-7B", 3584, 28, 28, 4, 128, 18944, 152064, 2048, False, True, 2)


def make_limits(
    *,
    max_model_len: int = 2048,
    tokens: int = 4096,
    seqs: int = 64,
    logits: int = 2048,
    block: int = 32,
    ratio: float = 1.0,
    page: int = 16,
) -> EngineLimits:
    return EngineLimits(max_model_len, tokens, seqs, logits, block, ratio, page)


def test_llada_8b_has_the_sizes_of_its_card() -> None:
    assert LLADA_8B.parameters == 8_015_581_184
    assert LLADA_8B.weights_bytes / GIB == pytest.approx(14.93, abs=0.01)
    assert LLADA_8B.kv_bytes_per_slot == 512 * 1024


def test_dream_7b_has_the_sizes_of_its_card() -> None:
    assert DREAM_7B.parameters == 7_615_616_512
    assert DREAM_7B.kv_bytes_per_slot == 56 * 1024


def test_tying_saves_one_embedding() -> None:
    tied = replace(LLADA_8B, is_tied=True)

    assert LLADA_8B.parameters - tied.parameters == 126464 * 4096


def test_retention_shrinks_the_pages_of_a_full_request() -> None:
    whole = plan_budget(LLADA_8B, 80 * GIB, 0.9, make_limits())
    tenth = plan_budget(LLADA_8B, 80 * GIB, 0.9, make_limits(ratio=0.1))

    assert whole.pages_per_full_request == math.ceil(2049 / 16)
    assert tenth.pages_per_full_request == math.ceil((201 + 33) / 16)
    assert tenth.full_requests > whole.full_requests
    assert tenth.kv_bytes_per_token == pytest.approx(51.2 * 1024)


def test_the_pool_takes_no_more_than_all_sequences_can_use() -> None:
    budget = plan_budget(LLADA_8B, 640 * GIB, 0.9, make_limits(seqs=2))

    assert budget.full_requests == 2
    assert budget.free_bytes > 400 * GIB


def test_measured_bytes_replace_predictions() -> None:
    budget = plan_budget(
        LLADA_8B, 80 * GIB, 0.9, make_limits(), weights_bytes=GIB, activations_bytes=2, logits_bytes=3
    )

    assert (budget.weights_bytes, budget.activations_bytes, budget.logits_bytes) == (GIB, 2, 3)


@pytest.mark.parametrize(
    ("device_gib", "changes", "owner", "remedy"),
    [
        (8.0, {}, "weights need", "use a smaller model"),
        (17.0, {}, "reserve need", "raise gpu_memory_utilization"),
        (18.0, {"tokens": 65536}, "activations need", "lower max_num_batched_tokens"),
        (19.0, {"logits": 65536}, "logits need", "lower max_num_logits"),
        (22.0, {}, "kv_pool has", "lower max_model_len, retention_ratio"),
        (80.0, {"max_model_len": 8192, "tokens": 8192}, "max_model_len 8192 exceeds", "lower it"),
        (80.0, {"tokens": 1024}, "max_num_batched_tokens 1024 is below", "raise the one"),
        (80.0, {"block": 1024, "max_model_len": 512}, "block_length 1024 exceeds", "lower block_length"),
    ],
)
def test_a_refusal_names_the_owner_and_the_remedy(
    device_gib: float, changes: dict[str, int], owner: str, remedy: str
) -> None:
    with pytest.raises(BudgetError) as refused:
        plan_budget(LLADA_8B, int(device_gib * GIB), 0.9, make_limits(**changes))

    assert str(refused.value).startswith(owner)
    assert remedy in str(refused.value)


@given(
    st.integers(1, 200).map(lambda n: n * GIB),
    st.floats(0.05, 1),
    st.integers(64, 4096),
    st.integers(1, 200),
    st.floats(0.01, 1),
    st.sampled_from([1, 16, 256]),
    st.one_of(st.none(), st.integers(0, 100 * GIB)),
)
def test_owners_share_what_is_usable_and_a_full_request_always_fits(
    device: int, utilization: float, length: int, seqs: int, ratio: float, page: int, pool: int | None
) -> None:
    limits = make_limits(max_model_len=length, seqs=seqs, ratio=ratio, page=page)
    try:
        budget: Budget = plan_budget(LLADA_8B, device, utilization, limits, kv_pool_bytes=pool)
    except BudgetError as refused:
        assert "lower" in str(refused) or "larger device" in str(refused)
        return

    assert min(budget.owners().values()) >= 0
    assert sum(budget.owners().values()) == budget.usable_bytes <= device
    assert budget.full_requests >= 1
    assert budget.kv_pool_bytes == (budget.pages + 1) * budget.page_bytes
    assert pool is None or budget.kv_pool_bytes <= pool


@pytest.mark.parametrize(
    ("sequence", "block", "ratio", "kept"),
    [
        (100, 32, 1.0, 68),
        (100, 32, 0.5, 34),
        (62, 32, 0.1, 3),
        (33, 32, 0.01, 1),
        (32, 32, 1.0, 0),
        (130, 30, 0.29, 29),
    ],
)
def test_kept_context_is_the_floor_and_at_least_one(
    sequence: int, block: int, ratio: float, kept: int
) -> None:
    assert kept_context_tokens(sequence, block, ratio) == kept


@given(st.integers(1, 4096), st.integers(1, 1024), st.integers(1, 1000))
def test_kept_context_equals_exact_arithmetic(context: int, block: int, thousandths: int) -> None:
    exact = max(1, math.floor(Fraction(thousandths, 1000) * context))

    assert kept_context_tokens(context + block, block, thousandths / 1000) == exact


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 400),
    st.floats(0.001, 1),
    st.integers(1, 64),
    st.integers(0, 1),
)
def test_the_pages_of_a_lifetime_cover_every_block(
    prompt: int, generated: int, block_length: int, ratio: float, page: int, shift: int
) -> None:
    pages = lifetime_pages(prompt, generated, block_length, ratio, page, shift)

    for start in range(0, generated, block_length):
        block = min(block_length, generated - start)
        kept = kept_context_tokens(prompt + generated, block, ratio)
        assert kept + block + shift <= pages * page
    assert pages * page < prompt + generated + shift + page


def test_a_gibibyte_is_1024_mebibytes() -> None:
    assert GIB == 1024 * MIB
