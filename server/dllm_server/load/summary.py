"""What the outcomes of a load come to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dllm_server.load.objective import Objective
from dllm_server.load.outcome import Outcome
from dllm_server.load.percentile import Spread


@dataclass(frozen=True, slots=True)
class Summary:
    """Latencies are those of answered requests, from the intended arrival; ``good`` ones were answered within
    the objective. Rates are over ``seconds``, from the load's begin to its last end. Tokens are None where
    the endpoint does not count them."""

    requests: int
    answered: int
    errors: dict[str, int]
    seconds: float
    offered_per_second: float
    answered_per_second: float
    good: int
    good_per_second: float
    prompt_tokens: int | None
    completion_tokens: int | None
    tokens_per_second: float
    queue: Spread
    first: Spread
    pause: Spread
    end: Spread
    lag: Spread

    @property
    def good_share(self) -> float:
        """Of all requests; NaN of none."""
        return self.good / self.requests if self.requests else math.nan


def summarise(rounds: Sequence[Sequence[Outcome]], objective: Objective) -> Summary:
    """Of one or more loads, each of which began at 0, one after the other."""
    outcomes = [outcome for outcomes in rounds for outcome in outcomes]
    answered = [outcome for outcome in outcomes if outcome.error is None]
    seconds = math.fsum(max((outcome.ended for outcome in outcomes), default=0.0) for outcomes in rounds)
    arriving = math.fsum(max((outcome.intended for outcome in outcomes), default=0.0) for outcomes in rounds)
    good = sum(objective.is_met_by(outcome) for outcome in outcomes)
    prompt_tokens = _total([outcome.prompt_tokens for outcome in answered])
    completion_tokens = _total([outcome.completion_tokens for outcome in answered])
    return Summary(
        requests=len(outcomes),
        answered=len(answered),
        errors=dict(Counter(outcome.error for outcome in outcomes if outcome.error).most_common()),
        seconds=seconds,
        offered_per_second=_rate(len(outcomes), arriving),
        answered_per_second=_rate(len(answered), seconds),
        good=good,
        good_per_second=_rate(good, seconds),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        tokens_per_second=math.nan if completion_tokens is None else _rate(completion_tokens, seconds),
        queue=Spread.of(outcome.queue_seconds for outcome in answered if outcome.queue_seconds is not None),
        first=Spread.of(outcome.first_seconds for outcome in answered if outcome.first_seconds is not None),
        pause=Spread.of(pause for outcome in answered for pause in outcome.pauses),
        end=Spread.of(outcome.end_seconds for outcome in answered),
        lag=Spread.of(outcome.lag_seconds for outcome in outcomes),
    )


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _rate(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else math.nan
