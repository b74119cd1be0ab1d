"""Routing against the families' rules, written out for one token in plain Python's float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from dllm_kernels.backend import Backend
from dllm_kernels.routing import RoutingRule, Score, route
from torch import Tensor

from tests.kernels.implementations import (
    HAS_GPU,
    Implementation,
    each_implementation,
    each_width,
    needs_triton,
    table_of,
)

LLADA2 = RoutingRule(
    score=Score.SIGMOID,
    chosen=3,
    groups=4,
    kept_groups=2,
    renormalises=True,
    epsilon=1e-20,
    scale=2.5,
    shared=1,
)
RULES = {
    "llada2": LLADA2,
    "llada_moe": RoutingRule(score=Score.SOFTMAX, chosen=3),
    "llada_moe-with-bias": RoutingRule(score=Score.SOFTMAX, chosen=3, keeps_bias=True),
    "sdar_moe": RoutingRule(score=Score.SOFTMAX, chosen=3, renormalises=True),
    "groups-of-three": replace(LLADA2, groups=3, kept_groups=2, chosen=2, shared=2),
    "groups-of-one": replace(LLADA2, groups=12, kept_groups=5, chosen=4, shared=0),
    "one-expert": RoutingRule(score=Score.SOFTMAX, chosen=1),
}
EXPERTS = 12
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())


def route_one(logits: list[float], bias: list[float] | None, rule: RoutingRule) -> dict[int, float]:
    """Weights by expert, best first, then the shared ones."""
    if rule.score is Score.SIGMOID:
        scores = [1 / (1 + math.exp(-logit)) for logit in logits]
    else:
        total = sum(math.exp(logit) for logit in logits)
        scores = [math.exp(logit) / total for logit in logits]
    biased = [score + (bias[i] if bias else 0.0) for i, score in enumerate(scores)]
    size = len(logits) // rule.groups
    groups = [range(first, first + size) for first in range(0, len(logits), size)]
    best_groups = sorted(groups, key=lambda group: -sum(sorted(biased[i] for i in group)[-2:]))
    open_experts = {i for group in best_groups[: rule.kept_groups] for i in group}
    chosen = sorted(open_experts, key=lambda i: (-biased[i], i))[: rule.chosen]
    weights = {i: (biased if rule.keeps_bias else scores)[i] for i in chosen}
    total = sum(weights.values()) + rule.epsilon if rule.renormalises else 1.0
    shared = range(len(logits), len(logits) + rule.shared)
    return {i: weight / total * rule.scale for i, weight in weights.items()} | dict.fromkeys(shared, 1.0)


def make_logits(tokens: int, experts: int = EXPERTS, seed: int = 0) -> Tensor:
    return torch.randn(tokens, experts, generator=torch.Generator().manual_seed(seed)) * 2


@each_implementation
@each_rule
@pytest.mark.parametrize("has_bias", [False, True])
def test_each_familys_rule(implementation: Implementation, rule: RoutingRule, has_bias: bool) -> None:
    logits = make_logits(5)
    bias = torch.linspace(0.3, -0.3, EXPERTS)[torch.randperm(EXPERTS)] if has_bias else None
    device = implementation.device

    experts, weights = implementation.run.route(
        logits.to(device), None if bias is None else bias.to(device), rule
    )

    assert (experts.dtype, weights.dtype) == (torch.int32, torch.float32)
    for row, taken, at in zip(logits.tolist(), experts.tolist(), weights.tolist(), strict=True):
        expected = route_one(row, None if bias is None else bias.tolist(), rule)
        assert taken == list(expected)
        assert at == pytest.approx(list(expected.values()), rel=1e-5)


@each_implementation
@each_rule
def test_of_equal_scores_the_lowest_number_comes_first(
    implementation: Implementation, rule: RoutingRule
) -> None:
    logits = torch.zeros(2, EXPERTS)
    logits[1, 5:] = 1.0

    experts, _ = implementation.run.route(logits.to(implementation.device), None, rule)

    for row, taken in zip(logits.tolist(), experts.tolist(), strict=True):
        assert taken == list(route_one(row, None, rule))


@each_implementation
@each_rule
def test_a_token_that_is_not_finite_leaves_the_others_alone(
    implementation: Implementation, rule: RoutingRule
) -> None:
    logits = make_logits(3)
    broken = logits.clone()
    broken[1] = torch.nan
    sound = [each.cpu() for each in implementation.run.route(logits.to(implementation.device), None, rule)]

    experts, weights = implementation.run.route(broken.to(implementation.device), None, rule)

    assert ((experts >= 0) & (experts < EXPERTS + rule.shared)).all()
    assert weights[1, : rule.chosen].isnan().all()
    for row in (0, 2):
        assert torch.equal(experts[row].cpu(), sound[0][row])
        assert torch.equal(weights[row].cpu(), sound[1][row])


@each_implementation
@each_width
@pytest.mark.parametrize("tokens", [1, 5, 70])
def test_logits_are_float32_whatever_the_weights(
    implementation: Implementation, width: str, tokens: int
) -> None:
    torch.manual_seed(0)
    x, weight = (
        torch.randn(size, 40).to(implementation.dtype(width)).to(implementation.device)
        for size in (tokens, EXPERTS)
    )

    logits = implementation.run.router_logits(x, weight)

    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), x.double() @ weight.double().T, rtol=1e-5, atol=1e-5)


@each_implementation
def test_no_token_is_routed_to_nothing(implementation: Implementation) -> None:
    empty = torch.empty(0, EXPERTS, device=implementation.device)

    experts, weights = implementation.run.route(empty, None, LLADA2)

    assert experts.shape == weights.shape == (0, LLADA2.chosen + LLADA2.shared)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (replace(LLADA2, groups=5), "12 experts are not 5 groups"),
        (replace(LLADA2, kept_groups=5), "5 of 4 groups"),
        (replace(LLADA2, chosen=7), "7 experts cannot be chosen from 2 groups of 3"),
    ],
)
def test_a_rule_that_does_not_fit_the_experts_is_refused(rule: RoutingRule, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        route(make_logits(2), None, rule)


@needs_triton
@pytest.mark.parametrize(("tokens", "count"), [(1, 3), (21, 6), (40, 35)])
def test_slots_are_ordered_by_expert_and_tiles_cover_them(tokens: int, count: int) -> None:
    from dllm_kernels.gpu.expert_order import order_by_expert

    implementation = Implementation(Backend.TRITON, torch.device("cuda" if HAS_GPU else "cpu"), True)
    torch.manual_seed(tokens)
    experts = torch.rand(tokens, count)[:, : count - 1].topk(2).indices.int()

    order = order_by_expert(table_of(implementation), experts.to(implementation.device), count, 16)

    expected = experts.flatten().sort(stable=True)
    assert order.rows.argsort().tolist() == expected.indices.tolist()
    assert order.tokens.tolist() == (expected.indices // 2).tolist()
    counts = torch.bincount(experts.flatten(), minlength=count)
    assert order.ends.tolist() == counts.cumsum(0).tolist()
    tiles = [
        [expert, int(counts[:expert].sum()) + first, min(16, rows - first)]
        for expert, rows in enumerate(counts.tolist())
        for first in range(0, rows, 16)
    ]
    assert order.filled_tiles.tolist() == [len(tiles)]
    assert order.tiles[: len(tiles), :3].tolist() == tiles
