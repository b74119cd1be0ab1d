"""Which experts each token takes, and at what weight."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor


class Score(StrEnum):
    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRule:
    """How a family's router turns logits into experts and weights.

    Attributes:
        score: of a logit; the softmax is over all experts.
        chosen: experts a token takes of those that are routed.
        groups: equal runs of consecutive experts. A group's score is the sum of its two largest scores, bias
            included; experts are chosen from the ``kept_groups`` best groups.
        renormalises: weights are divided by their sum and ``epsilon``.
        scale: of the weights, at last.
        keeps_bias: the bias that is added for the choice stays in the weights.
        shared: experts that every token takes at weight 1, numbered after those that are routed.
    """

    score: Score
    chosen: int
    groups: int = 1
    kept_groups: int = 1
    renormalises: bool = False
    epsilon: float = 0.0
    scale: float = 1.0
    keeps_bias: bool = False
    shared: int = 0

    def check(self, experts: int) -> None:
        """Raise ``ValueError`` where ``experts`` cannot be routed by this rule."""
        if self.groups < 1 or experts % self.groups:
            raise ValueError(f"{experts} experts are not {self.groups} groups of one size")
        if not 1 <= self.kept_groups <= self.groups:
            raise ValueError(f"{self.kept_groups} of {self.groups} groups cannot be kept")
        if not 1 <= self.chosen <= experts // self.groups * self.kept_groups:
            raise ValueError(
                f"{self.chosen} experts cannot be chosen from {self.kept_groups} groups of "
                f"{experts // self.groups}"
            )


def router_logits(x: Tensor, weight: Tensor) -> Tensor:
    """``x`` ``[tokens, width]`` through ``weight`` ``[experts, width]``, one dtype; accumulated and returned
    in float32.

    Returns:
        ``[tokens, experts]``.
    """
    return F.linear(x.float(), weight.float())


def route(logits: Tensor, bias: Tensor | None, rule: RoutingRule) -> tuple[Tensor, Tensor]:
    """Choose experts by ``rule``, all in float32. Of equal scores the lowest number comes first.

    A token whose logits are not finite takes some experts, and their weights are not finite where its scores
    are not.

    Args:
        logits: float32 ``[tokens, experts]``, the experts that are routed.
        bias: float32 ``[experts]``, added to the scores for the choice.

    Returns:
        Experts int32 and weights float32, ``[tokens, chosen + shared]`` each: those chosen, best first, then
        the shared ones.

    Raises:
        ValueError: where the experts are not those of the rule.
    """
    tokens, experts = logits.shape
    rule.check(experts)
    scores = logits.softmax(-1) if rule.score is Score.SOFTMAX else logits.sigmoid()
    biased = scores if bias is None else scores + bias
    ranked = biased.masked_fill(biased.isnan(), -torch.inf)
    if rule.groups > 1:
        grouped = ranked.view(tokens, rule.groups, experts // rule.groups)
        group_scores = grouped.topk(min(2, grouped.shape[2]), dim=2).values.sum(2)
        dropped = _largest(group_scores, rule.groups)[:, rule.kept_groups :]
        ranked = grouped.scatter(
            1, dropped.unsqueeze(2).expand(-1, -1, grouped.shape[2]), -torch.inf
        ).flatten(1)
    chosen = _largest(ranked, rule.chosen)
    weights = (biased if rule.keeps_bias else scores).gather(1, chosen)
    if rule.renormalises:
        weights = weights / (weights.sum(1, keepdim=True) + rule.epsilon)
    shared = torch.arange(experts, experts + rule.shared, device=logits.device).expand(tokens, -1)
    taken = torch.cat((chosen, shared), dim=1).to(torch.int32)
    return taken, F.pad(weights * rule.scale, (0, rule.shared), value=1.0)


def _largest(values: Tensor, count: int) -> Tensor:
    """Indices of each row's ``count`` largest, the lowest of equal ones first."""
    return values.sort(dim=1, descending=True, stable=True).indices[:, :count]
