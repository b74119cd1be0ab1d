"""How little is computed again: many requests behind one system prompt, and a conversation turn by turn."""

from __future__ import annotations

from collections import defaultdict

from dllm_server.engine.engine import Engine
from dllm_server.engine.schedule.batch import StepBatch
from engines import FIXTURES, make_engine, make_request, run_all, run_alone
from faulty_runner import install


def watch_positions(engine: Engine) -> dict[str, set[int]]:
    """Positions of each request whose K/V are computed from now on, by its id."""
    computed: dict[str, set[int]] = defaultdict(set)
    runner = install(engine)
    launch = runner.launch

    def watched(batch: StepBatch, max_num_logits: int) -> object:
        ends = (batch.starts + batch.lengths).tolist()
        for slot, start, end in zip(batch.slots.tolist(), batch.starts.tolist(), ends, strict=True):
            request = engine._running[slot].request_id
            computed[request].update(batch.positions[start:end].tolist())
        return launch(batch, max_num_logits)

    runner.launch = watched  # type: ignore[method-assign,assignment]
    return computed


def test_64_requests_behind_one_system_prompt_compute_it_once() -> None:
    block, page, system = 4, 16, [3 + number % 300 for number in range(192)]
    engine = make_engine(
        FIXTURES / "sdar", page_size=page, max_num_batched_tokens=96, kv_pool_bytes=16 * 1024**2
    )
    computed = watch_positions(engine)
    requests = [
        make_request(
            str(number),
            prompt=[*system, 5, 7, 11 + number],
            max_tokens=block,
            block_length=block,
            value=float(block),
        )
        for number in range(64)
    ]

    outcomes = run_all(engine, requests)

    assert all(outcome.is_complete for outcome in outcomes.values())
    shared = sum(position < len(system) for positions in computed.values() for position in positions)
    assert len(system) <= shared <= 1.1 * len(system)
    assert engine.course.store.counts.saved_tokens >= 63 * len(system)


def test_a_conversation_of_eight_turns_computes_at_most_a_block_of_what_it_knows_again() -> None:
    block = 8
    engine = make_engine(FIXTURES / "sdar_b8", page_size=block, kv_pool_bytes=16 * 1024**2)
    computed = watch_positions(engine)
    history: list[int] = []
    again = []
    for turn in range(8):
        known = len(history)
        history += [20 + turn + number for number in range(5 + 3 * turn)]
        request = make_request(str(turn), prompt=history, max_tokens=7 + turn, block_length=block, value=4.0)
        history = history + run_alone(engine, request).tokens
        again.append(sum(position < known for position in computed[str(turn)]))

    assert again[0] == 0
    assert max(again) <= block
