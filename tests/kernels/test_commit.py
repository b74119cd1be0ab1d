from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dllm_kernels.commit import MASKED, NOT_FINITE, CommitRows
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.implementations import Implementation, each_implementation

BLOCK = 40


@each_implementation
@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(0, BLOCK), min_size=1, max_size=4),
    quota=st.integers(0, 5),
    threshold=st.sampled_from([0.3, 0.9, math.inf]),
    seed=st.integers(0, 99),
)
def test_the_surest_masked_rows_are_committed_and_nothing_else_changes(
    implementation: Implementation, counts: list[int], quota: int, threshold: float, seed: int
) -> None:
    dice, device = np.random.default_rng(seed), implementation.device
    columns = [np.sort(dice.choice(BLOCK, count, replace=False)) for count in counts]
    cells = np.concatenate([request * BLOCK + column for request, column in enumerate(columns)])
    canvas = dice.integers(0, 50, len(counts) * BLOCK + 7)
    places = cells + 7
    canvas[places] = MASKED
    committed_before = dice.random(len(cells)) < 0.2
    canvas[places[committed_before]] = 3
    confidence = dice.integers(1, 9, len(cells)) / 10  # with ties
    tokens = dice.integers(0, 50, len(cells))
    first = np.concatenate(([0], np.cumsum(counts)))
    on_device = torch.from_numpy(canvas).to(device, copy=True)
    result = torch.full((2, len(counts), BLOCK), 77, dtype=torch.int32, device=device)

    implementation.run.commit_rows(
        torch.from_numpy(confidence).float().to(device),
        torch.from_numpy(tokens).to(device),
        torch.from_numpy(confidence).float().to(device),
        CommitRows(
            canvas=torch.from_numpy(places).to(device),
            cell=torch.from_numpy(cells).to(device),
            first=torch.from_numpy(first).int().to(device),
            quota=torch.full((len(counts),), quota, device=device),
            threshold=torch.full((len(counts),), threshold, dtype=torch.float32, device=device),
        ),
        on_device,
        result,
    )

    expected, shown = canvas.copy(), np.full(len(counts) * BLOCK, MASKED)
    for request in range(len(counts)):
        rows = [row for row in range(first[request], first[request + 1]) if not committed_before[row]]
        rows.sort(key=lambda row: -confidence[row])  # stable: ties go to the lower position
        for rank, row in enumerate(rows):
            if rank < quota or np.float32(confidence[row]) >= np.float32(threshold):
                expected[places[row]] = shown[cells[row]] = tokens[row]
    assert on_device.tolist() == expected.tolist()
    assert result[0].flatten().tolist() == shown.tolist()
    logprobs = result[1].flatten()[torch.from_numpy(cells).to(device)].view(torch.float32)
    np.testing.assert_allclose(logprobs.cpu().numpy(), np.log(confidence), rtol=1e-5, atol=1e-6)


@each_implementation
@pytest.mark.parametrize(("of_confidence", "value"), [(False, math.nan), (False, math.inf), (True, math.nan)])
def test_a_request_with_a_row_that_is_no_number_commits_nothing_and_the_row_is_marked(
    implementation: Implementation, of_confidence: bool, value: float
) -> None:
    """Three requests of four rows; of the last, the broken row is no longer masked."""
    device = implementation.device
    share = torch.tensor([0.9, 0.8, 0.7, 0.6] * 3)
    confidence, probability = share.clone(), share.clone()
    (confidence if of_confidence else probability)[[5, 9]] = value
    canvas = torch.full((12,), MASKED)
    canvas[9] = 7
    on_device, cells = canvas.to(device), torch.arange(12, device=device)
    result = torch.full((2, 3, 4), 77, dtype=torch.int32, device=device)

    implementation.run.commit_rows(
        confidence.to(device),
        torch.arange(20, 32).to(device),
        probability.to(device),
        CommitRows(
            canvas=cells,
            cell=cells,
            first=torch.tensor([0, 4, 8, 12], dtype=torch.int32, device=device),
            quota=torch.full((3,), 2, device=device),
            threshold=torch.full((3,), 0.65, device=device),
        ),
        on_device,
        result,
    )

    assert result[0].tolist() == [[20, 21, 22, -1], [-1, NOT_FINITE, -1, -1], [28, -1, 30, -1]]
    shown = [20, 21, 22, -1, -1, -1, -1, -1, 28, 7, 30, -1]
    assert on_device.tolist() == shown
