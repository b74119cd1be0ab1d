"""The last steps and the requests by phase add up to the engine's own counts."""

from __future__ import annotations

from collections import Counter

from dllm_server.engine.accounts.stats import RECENT_STEPS
from engines import FIXTURE, make_engine, make_request


def test_recent_steps_add_up_to_the_counters() -> None:
    engine = make_engine(FIXTURE)
    for number in range(3):
        engine.submit(make_request(f"r{number}", max_tokens=8 + 8 * number))
    while engine.has_work:
        assert sum(engine.requests_by_phase.values()) == engine.requests_waiting + engine.requests_running
        engine.step()

    stats = engine.stats
    tokens: Counter[str] = Counter()
    for step in stats.recent:
        tokens.update(step.tokens)
    assert len(stats.recent) == sum(stats.steps.values()) <= RECENT_STEPS
    assert tokens == stats.tokens
    assert sum(step.committed_tokens for step in stats.recent) == stats.committed_tokens
    assert [step.number for step in stats.recent] == [*range(1, len(stats.recent) + 1)]
    assert max(sum(step.requests.values()) for step in stats.recent) == 3
    assert set(engine.requests_by_phase.values()) == {0}


def test_only_the_last_steps_are_kept() -> None:
    engine = make_engine(FIXTURE)
    engine.submit(make_request(max_tokens=RECENT_STEPS + 8, value=1.0))
    while engine.has_work:
        engine.step()

    assert len(engine.stats.recent) == RECENT_STEPS
    assert engine.stats.recent[-1].number == sum(engine.stats.steps.values()) > RECENT_STEPS
