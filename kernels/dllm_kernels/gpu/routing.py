"""The router: the library's product, and one kernel that turns its logits into experts and weights."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from dllm_kernels import routing
from dllm_kernels.gpu.configurations import ConfigurationTable, Key, bucket
from dllm_kernels.gpu.jit import await_inputs, cdiv, jit, kernel, overlapping, power_of_two
from dllm_kernels.routing import RoutingRule, Score

KERNEL = "route"


@jit
def _first_where(is_one: tl.tensor, index: tl.tensor, axis: tl.constexpr) -> tl.tensor:
    """The least ``index`` where ``is_one`` along ``axis``."""
    return tl.min(tl.where(is_one, index, 0x7FFFFFFF), axis)


@jit
def _keep_groups(
    ranked: tl.tensor, groups: tl.constexpr, size: tl.constexpr, members: tl.constexpr, kept: tl.constexpr
) -> tl.tensor:
    """``ranked`` [tokens, groups * size] with -inf outside the ``kept`` best groups; ``members`` of each are
    experts."""
    grouped = ranked.reshape(ranked.shape[0], groups, size)
    best = tl.max(grouped, 2)
    if members > 1:
        member = tl.arange(0, size)[None, None, :]
        place = _first_where(grouped == best[:, :, None], member, 2)
        best += tl.max(tl.where(member == place[:, :, None], -float("inf"), grouped), 2)
    group = tl.arange(0, groups)
    mine, other = best[:, :, None], best[:, None, :]
    is_before = (other > mine) | ((other == mine) & (group[None, None, :] < group[None, :, None]))
    is_kept = tl.sum(is_before.to(tl.int32), 2) < kept
    return tl.where(is_kept[:, :, None], grouped, -float("inf")).reshape(ranked.shape[0], groups * size)


@kernel("tokens")
def _route(
    logits: tl.tensor,
    bias: tl.tensor,
    experts: tl.tensor,
    weights: tl.tensor,
    tokens: tl.tensor,
    epsilon: tl.tensor,
    scale: tl.tensor,
    groups: tl.constexpr,
    members: tl.constexpr,
    chosen: tl.constexpr,
    shared: tl.constexpr,
    kept_groups: tl.constexpr,
    is_softmax: tl.constexpr,
    has_bias: tl.constexpr,
    keeps_bias: tl.constexpr,
    renormalises: tl.constexpr,
    group_columns: tl.constexpr,
    member_columns: tl.constexpr,
    slot_columns: tl.constexpr,
    overlaps: tl.constexpr,
    block_tokens: tl.constexpr,
) -> None:
    """One program: ``block_tokens`` tokens. Columns are groups of ``member_columns``, of which ``members``
    are experts."""
    await_inputs(overlaps)
    token = tl.program_id(0) * block_tokens + tl.arange(0, block_tokens)
    column = tl.arange(0, group_columns * member_columns)
    group, member = column // member_columns, column % member_columns
    expert = group * members + member
    is_expert = (group < groups) & (member < members)
    holds_token = token < tokens
    place = logits + token.to(tl.int64)[:, None] * (groups * members) + expert[None, :]
    holds = holds_token[:, None] & is_expert[None, :]
    scores = tl.load(place, mask=holds, other=-float("inf"))
    if is_softmax:
        scores = tl.exp(scores - tl.max(scores, 1)[:, None])
        scores = scores / tl.sum(scores, 1)[:, None]
    else:
        scores = 1.0 / (1.0 + tl.exp(-scores))
    biased = scores
    if has_bias:
        biased += tl.load(bias + expert, mask=is_expert, other=0.0)[None, :]
    ranked = tl.where(is_expert[None, :] & (biased == biased), biased, -float("inf"))
    if groups > 1:
        ranked = _keep_groups(ranked, group_columns, member_columns, members, kept_groups)
    if keeps_bias:
        scores = biased
    slot = tl.arange(0, slot_columns)[None, :]
    taken = groups * members + slot - chosen + tl.zeros((block_tokens, 1), tl.int32)
    at = tl.zeros((block_tokens, slot_columns), tl.float32)
    total = tl.zeros((block_tokens,), tl.float32)
    for number in tl.static_range(chosen):
        best = _first_where(ranked == tl.max(ranked, 1)[:, None], column[None, :], 1)
        is_best = column[None, :] == best[:, None]
        weight = tl.sum(tl.where(is_best, scores, 0.0), 1)
        total += weight
        ranked = tl.where(is_best, -float("inf"), ranked)
        best_expert = best // member_columns * members + best % member_columns
        taken = tl.where(slot == number, tl.minimum(best_expert, groups * members - 1)[:, None], taken)
        at = tl.where(slot == number, weight[:, None], at)
    if renormalises:
        at = at / (total + epsilon)[:, None]
    at = tl.where(slot < chosen, at * scale, 1.0)
    place = token.to(tl.int64)[:, None] * (chosen + shared) + slot
    holds = holds_token[:, None] & (slot < chosen + shared)
    tl.store(experts + place, taken, mask=holds)
    tl.store(weights + place, at, mask=holds)


def key_of(logits: Tensor, rule: RoutingRule) -> Key:
    return bucket(logits.shape[0]), logits.shape[1], rule.groups, rule.chosen


def router_logits(table: ConfigurationTable, x: Tensor, weight: Tensor) -> Tensor:
    """Twin of ``dllm_kernels.routing.router_logits``."""
    if x.is_cuda and x.element_size() == 2:
        return torch.mm(x, weight.t(), out_dtype=torch.float32)
    return routing.router_logits(x, weight)


def route(
    table: ConfigurationTable, logits: Tensor, bias: Tensor | None, rule: RoutingRule
) -> tuple[Tensor, Tensor]:
    """Twin of ``dllm_kernels.routing.route``."""
    tokens, count = logits.shape
    rule.check(count)
    size = tokens, rule.chosen + rule.shared
    experts = torch.empty(size, dtype=torch.int32, device=logits.device)
    weights = torch.empty(size, dtype=torch.float32, device=logits.device)
    members = count // rule.groups
    if tokens:
        configuration = table.get(KERNEL, key_of(logits, rule))
        _route[(cdiv(tokens, configuration.blocks["block_tokens"]),)](
            logits,
            logits if bias is None else bias,
            experts,
            weights,
            tokens,
            rule.epsilon,
            rule.scale,
            groups=rule.groups,
            members=members,
            chosen=rule.chosen,
            shared=rule.shared,
            kept_groups=rule.kept_groups,
            is_softmax=rule.score is Score.SOFTMAX,
            has_bias=bias is not None,
            keeps_bias=rule.keeps_bias,
            renormalises=rule.renormalises,
            group_columns=power_of_two(rule.groups),
            member_columns=power_of_two(members),
            slot_columns=power_of_two(rule.chosen + rule.shared),
            **configuration.launch,
            **overlapping(logits),
        )
    return experts, weights
