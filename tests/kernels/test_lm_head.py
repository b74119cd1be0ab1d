from __future__ import annotations

import math

import pytest
import torch
from dllm_kernels.lm_head import Choice, Sampling, lm_head_choose
from dllm_kernels.noise import noise_keys
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.implementations import Implementation, each_lm_head

VOCABULARY, WIDTH = 40, 16
BANNED = torch.tensor([7, 11])


def make_inputs(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, WIDTH, generator=generator)
    return hidden, torch.randn(VOCABULARY, WIDTH, generator=generator)


def make_sampling(rows: int, *, temperature: float = 1.0, seed: int = 0) -> Sampling:
    position = torch.arange(rows)
    keys = noise_keys(torch.full_like(position, seed), position, torch.zeros_like(position))
    return Sampling(torch.full((rows,), temperature), keys)


def choose(
    implementation: Implementation, hidden: Tensor, weight: Tensor, sampling: Sampling | None, most: int
) -> Choice:
    """On the implementation's device, with the result on the CPU."""
    device = implementation.device
    if sampling is not None:
        sampling = Sampling(sampling.temperature.to(device), sampling.keys.to(device))
    inputs = (tensor.to(device) for tensor in (hidden, weight, BANNED))
    choice = implementation.run.lm_head_choose(*inputs, sampling, most)
    return Choice(choice.token.cpu(), choice.probability.cpu(), choice.margin.cpu(), choice.entropy.cpu())


def assert_same(left: Choice, right: Choice) -> None:
    assert torch.equal(left.token, right.token)
    for name in ("probability", "margin", "entropy"):
        torch.testing.assert_close(getattr(left, name), getattr(right, name), rtol=1e-3, atol=1e-5)


def clean_logits(hidden: Tensor, weight: Tensor) -> Tensor:
    logits = hidden.double() @ weight.double().T
    logits[:, BANNED] = -torch.inf
    return logits


@each_lm_head
def test_the_greedy_choice_and_its_confidences_equal_float64(implementation: Implementation) -> None:
    hidden, weight = make_inputs(50)
    probability = clean_logits(hidden, weight).softmax(1)
    best = probability.topk(2, dim=1)

    choice = choose(implementation, hidden, weight, None, 100)

    assert torch.equal(choice.token, best.indices[:, 0])
    torch.testing.assert_close(choice.probability.double(), best.values[:, 0], rtol=1e-5, atol=1e-6)
    margin = best.values[:, 0] - best.values[:, 1]
    torch.testing.assert_close(choice.margin.double(), margin, rtol=1e-5, atol=1e-6)
    entropy = torch.special.entr(probability).sum(1)
    torch.testing.assert_close(choice.entropy.double(), entropy, rtol=1e-4, atol=1e-5)


@each_lm_head
def test_16_bit_inputs_are_projected_in_float32(implementation: Implementation) -> None:
    hidden, weight = make_inputs(50)
    hidden, weight = hidden.to(implementation.narrow), weight.to(implementation.narrow)

    choice = choose(implementation, hidden, weight, None, 100)

    assert torch.equal(choice.token, clean_logits(hidden, weight).argmax(1))
    assert choice.probability.dtype == torch.float32


@each_lm_head
def test_a_banned_token_is_never_chosen_even_when_it_is_by_far_the_best(
    implementation: Implementation,
) -> None:
    hidden, weight = make_inputs(200)
    hidden[:, 0], weight[7, 0] = 10.0, 50.0

    for sampling in (None, make_sampling(200, temperature=3e38)):
        choice = choose(implementation, hidden, weight, sampling, 64)
        assert not torch.isin(choice.token, BANNED).any()
        assert choice.probability.isfinite().all()


@each_lm_head
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 30), most=st.integers(8, 40), is_sampled=st.booleans())
def test_rows_at_once_change_nothing(
    implementation: Implementation, rows: int, most: int, is_sampled: bool
) -> None:
    hidden, weight = make_inputs(rows)
    sampling = make_sampling(rows) if is_sampled else None

    whole = choose(implementation, hidden, weight, sampling, 1000)

    assert_same(choose(implementation, hidden, weight, sampling, most), whole)


@each_lm_head
def test_no_rows_give_an_empty_choice(implementation: Implementation) -> None:
    choice = choose(implementation, torch.empty(0, WIDTH), make_inputs(1)[1], None, 8)

    assert choice.token.shape == choice.probability.shape == choice.margin.shape == (0,)
    assert choice.token.dtype == torch.int64


@each_lm_head
def test_temperature_picks_the_token_and_leaves_its_probability_alone(implementation: Implementation) -> None:
    hidden, weight = make_inputs(300)
    probability = clean_logits(hidden, weight).softmax(1)

    choice = choose(implementation, hidden, weight, make_sampling(300, temperature=5.0), 100)

    assert (choice.token != probability.argmax(1)).any()
    expected = probability.gather(1, choice.token[:, None])[:, 0]
    torch.testing.assert_close(choice.probability.double(), expected, rtol=1e-4, atol=1e-7)


@each_lm_head
def test_the_same_keys_draw_the_same_tokens_on_every_implementation(implementation: Implementation) -> None:
    hidden, weight = make_inputs(100)
    sampling = make_sampling(100, temperature=1.5)
    reference = lm_head_choose(hidden, weight, BANNED, sampling, 100)

    choice = choose(implementation, hidden, weight, sampling, 100)

    assert_same(choice, reference)


def test_samples_follow_the_softmax_at_the_temperature() -> None:
    hidden, weight = make_inputs(1)
    rows, temperature = 30000, 2.0
    expected = (clean_logits(hidden, weight)[0] / temperature).softmax(0)

    sampling = make_sampling(rows, temperature=temperature)
    choice = lm_head_choose(hidden.expand(rows, -1), weight, BANNED, sampling, 4096)

    frequency = torch.bincount(choice.token, minlength=VOCABULARY) / rows
    assert float((frequency - expected).abs().max()) < 0.012


@each_lm_head
def test_rows_at_temperature_zero_are_greedy_beside_sampled_ones(implementation: Implementation) -> None:
    hidden, weight = make_inputs(64)
    sampling = make_sampling(64, temperature=4.0)
    sampling.temperature[::2] = 0.0
    greedy = choose(implementation, hidden, weight, None, 64)

    mixed = choose(implementation, hidden, weight, sampling, 64)

    assert torch.equal(mixed.token[::2], greedy.token[::2])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the interpreter
@each_lm_head
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_not_finite_says_so_and_leaves_the_others_alone(
    implementation: Implementation, value: float, temperature: float
) -> None:
    hidden, weight = make_inputs(40)
    sampling = make_sampling(40, temperature=temperature) if temperature else None
    expected = choose(implementation, hidden, weight, sampling, 16)
    broken = hidden.clone()
    broken[5, 3] = broken[17] = value

    choice = choose(implementation, broken, weight, sampling, 16)

    is_broken = torch.isin(torch.arange(40), torch.tensor([5, 17]))
    assert not choice.probability[is_broken].isfinite().any()
    assert ((choice.token >= 0) & (choice.token < VOCABULARY)).all()
    for name in ("token", "probability", "margin", "entropy"):
        assert torch.equal(getattr(choice, name)[~is_broken], getattr(expected, name)[~is_broken])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@each_lm_head
def test_logits_that_overflow_float32_are_not_finite_either(implementation: Implementation) -> None:
    hidden, weight = make_inputs(4)
    hidden[2] *= 1e38

    choice = choose(implementation, hidden, weight, None, 16)

    assert choice.probability.isfinite().tolist() == [True, True, False, True]
