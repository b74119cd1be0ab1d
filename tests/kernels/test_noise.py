from __future__ import annotations

import torch
from dllm_kernels.noise import gumbel, noise_keys, uniform
from hypothesis import given
from hypothesis import strategies as st

int64 = st.integers(-(2**63), 2**63 - 1)


def keys_of(*rows: tuple[int, int, int]) -> torch.Tensor:
    seed, position, step = torch.tensor(rows, dtype=torch.int64).unbind(1)
    return noise_keys(seed, position, step)


@given(st.lists(st.tuples(int64, st.integers(0, 2**20), st.integers(0, 2**20)), min_size=1, max_size=8))
def test_a_row_depends_on_its_own_seed_position_and_step_alone(rows: list[tuple[int, int, int]]) -> None:
    together = uniform(keys_of(*rows), 9)

    for index, row in enumerate(rows):
        assert torch.equal(together[index], uniform(keys_of(row), 9)[0])


@given(int64, st.integers(0, 2**20), st.integers(0, 2**20))
def test_keys_are_32_bit_words_and_noise_is_finite(seed: int, position: int, step: int) -> None:
    key = keys_of((seed, position, step))

    assert 0 <= int(key) < 2**32
    sample = uniform(key, 257)
    assert float(sample.min()) > 0
    assert float(sample.max()) < 1
    assert gumbel(key, 257).isfinite().all()


def test_columns_do_not_depend_on_how_many_there_are() -> None:
    key = keys_of((1, 2, 3))

    assert torch.equal(uniform(key, 10), uniform(key, 1000)[:, :10])


def test_every_bit_of_a_64_bit_seed_counts() -> None:
    seeds = [0, *(1 << bit for bit in range(63)), -(2**63)]

    keys = keys_of(*((seed, 5, 7) for seed in seeds))

    assert len(set(keys.tolist())) == len(seeds)


def test_positions_and_steps_do_not_collide() -> None:
    keys = keys_of(*((42, position, step) for position in range(64) for step in range(64)))

    assert len(set(keys.tolist())) == 64 * 64


def test_uniform_fills_its_deciles_evenly() -> None:
    sample = uniform(keys_of(*((9, position, 0) for position in range(500))), 200)

    counts = torch.histc(sample, bins=10, min=0, max=1) / sample.numel()

    assert float((counts - 0.1).abs().max()) < 0.005
    assert abs(float(sample.mean()) - 0.5) < 0.005


def test_neighbouring_rows_and_columns_are_uncorrelated() -> None:
    sample = uniform(keys_of(*((9, position, 0) for position in range(400))), 400) - 0.5

    by_row = float((sample[1:] * sample[:-1]).mean()) * 12
    by_column = float((sample[:, 1:] * sample[:, :-1]).mean()) * 12

    assert abs(by_row) < 0.01
    assert abs(by_column) < 0.01


def test_argmax_with_gumbel_noise_samples_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5])
    keys = keys_of(*((123, position, 4) for position in range(40000)))

    chosen = (logits + gumbel(keys, 5)).argmax(dim=1)

    frequency = torch.bincount(chosen, minlength=5) / len(chosen)
    assert float((frequency - logits.softmax(0)).abs().max()) < 0.01
