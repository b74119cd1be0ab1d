from __future__ import annotations

import pytest
import torch
from dllm_kernels.lm_head import Choice, Sampling, lm_head_choose
from dllm_kernels.noise import noise_keys
from dllm_kernels.whole_logits import Alternatives, WholeRows, choose_whole, keep_likeliest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

VOCABULARY, WIDTH = 40, 16
BANNED = torch.tensor([7, 11])


def make_inputs(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, WIDTH, generator=generator), torch.randn(VOCABULARY, WIDTH, generator=generator)


def make_rows(
    rows: int,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    banned: Tensor | None = None,
    alternatives: int = 0,
) -> WholeRows:
    position = torch.arange(rows)
    keys = noise_keys(torch.zeros_like(position), position, torch.zeros_like(position))
    sampling = Sampling(torch.full((rows,), temperature), keys)
    return WholeRows(
        sampling, torch.full((rows,), top_p), torch.full((rows,), top_k), banned, None, alternatives
    )


def log_probabilities(hidden: Tensor, weight: Tensor, banned: Tensor | None = None) -> Tensor:
    logits = hidden.double() @ weight.double().T
    logits[:, BANNED] = -torch.inf
    if banned is not None:
        logits.scatter_(1, banned, -torch.inf)
    return logits.log_softmax(1)


def assert_same(left: tuple[Choice, Alternatives], right: tuple[Choice, Alternatives]) -> None:
    for one, other in zip(left, right, strict=True):
        for name in one.__dataclass_fields__:
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [None, 0.0, 1.5])
def test_rows_that_ask_for_nothing_choose_what_the_fused_path_does(temperature: float | None) -> None:
    hidden, weight = make_inputs(70)
    rows = WholeRows() if temperature is None else make_rows(70, temperature=temperature)

    choice, _ = choose_whole(hidden, weight, BANNED, rows, 64)

    assert torch.equal(choice.token, lm_head_choose(hidden, weight, BANNED, rows.sampling, 100).token)


@pytest.mark.parametrize("count", [1, 5, 20, VOCABULARY + 5])
def test_alternatives_are_the_most_likely_tokens_and_their_log_probabilities(count: int) -> None:
    hidden, weight = make_inputs(50)
    expected = log_probabilities(hidden, weight).topk(min(count, VOCABULARY), dim=1)

    _, found = choose_whole(hidden, weight, BANNED, make_rows(50, temperature=3.0, alternatives=count), 16)

    possible = expected.values.isfinite()
    assert torch.equal(found.token[possible], expected.indices[possible])
    torch.testing.assert_close(found.logprob.double(), expected.values, rtol=1e-5, atol=1e-5)


def test_alternatives_of_a_greedy_row_begin_with_what_it_chose() -> None:
    hidden, weight = make_inputs(50)

    choice, found = choose_whole(hidden, weight, BANNED, WholeRows(alternatives=3), 64)

    assert torch.equal(found.token[:, 0], choice.token)
    torch.testing.assert_close(found.logprob[:, 0].exp(), choice.probability, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, 3e38])
def test_a_rows_own_bans_take_neither_tokens_nor_probability(temperature: float) -> None:
    hidden, weight = make_inputs(60)
    banned = log_probabilities(hidden, weight).topk(3, dim=1).indices
    banned[::2] = BANNED[0]  # nothing more than all rows
    expected = log_probabilities(hidden, weight, banned)

    rows = make_rows(60, temperature=temperature, banned=banned, alternatives=20)
    choice, found = choose_whole(hidden, weight, BANNED, rows, 16)

    assert not (choice.token[:, None] == banned).any()
    probability = expected.gather(1, choice.token[:, None])[:, 0].exp()
    torch.testing.assert_close(choice.probability.double(), probability, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.logprob.double(), expected.topk(20, dim=1).values, rtol=1e-5, atol=1e-5)
    assert choice.entropy.isfinite().all()


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 30), most=st.integers(1, 40), top_k=st.sampled_from([0, 5]), bans=st.booleans())
def test_rows_at_once_change_nothing(rows: int, most: int, top_k: int, bans: bool) -> None:
    hidden, weight = make_inputs(rows)
    banned = torch.arange(rows)[:, None] % VOCABULARY if bans else None
    asked = make_rows(rows, top_k=top_k, banned=banned, alternatives=4)

    whole = choose_whole(hidden, weight, BANNED, asked, 1000)

    assert_same(choose_whole(hidden, weight, BANNED, asked, most), whole)


def test_a_banned_token_is_not_drawn_from_a_part_of_the_vocabulary_either() -> None:
    hidden, weight = make_inputs(200)
    hidden[:, 0], weight[7, 0] = 10.0, 50.0

    choice, _ = choose_whole(hidden, weight, BANNED, make_rows(200, top_k=3), 64)

    assert not torch.isin(choice.token, BANNED).any()


@given(
    top_k=st.integers(1, VOCABULARY + 5),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.999, 1.0]),
    seed=st.integers(0, 50),
)
@settings(max_examples=40, deadline=None)
def test_top_k_then_top_p_keep_exactly_the_tokens_that_float64_keeps(
    top_k: int, top_p: float, seed: int
) -> None:
    scaled = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(seed))
    order = scaled[0].argsort(descending=True)[:top_k].tolist()
    probability = scaled[0, order].double().softmax(0).tolist()
    before = [sum(probability[:rank]) for rank in range(len(order))]
    expected = {order[r] for r in range(len(order)) if r == 0 or top_p == 1 or before[r] < top_p}

    kept = keep_likeliest(scaled, torch.tensor([top_p]), torch.tensor([top_k]))[0]

    assert set(kept.isfinite().nonzero()[:, 0].tolist()) == expected
    assert torch.equal(kept[sorted(expected)], scaled[0, sorted(expected)])


def test_a_row_without_filters_keeps_its_whole_tail_beside_filtered_rows() -> None:
    scaled = torch.tensor([[0.0, -20.0, -30.0]] * 2)

    kept = keep_likeliest(scaled, torch.tensor([1.0, 0.5]), torch.tensor([0, 0]))

    assert torch.equal(kept[0], scaled[0])
    assert kept[1].isfinite().tolist() == [True, False, False]
