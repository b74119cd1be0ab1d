"""Random schedules over shared prefixes and too few pages: what holds at every step where K/V are exact."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import Generate
from dllm_server.engine.schedule.batch import StepBatch
from dllm_server.settings import Strategy
from engines import FIXTURES, Outcome, collect, make_engine, make_request, run_alone, used_pages
from faulty_runner import FaultyRunner, install
from hypothesis import given, settings
from hypothesis import strategies as st

FIXTURE = FIXTURES / "sdar"
BLOCK, PAGE, LONGEST = 4, 8, 48
ROUNDS = 50
TEXTS = ([7] * 32, [7] * 16 + [11] * 16, list(range(40, 72)))  # two that begin alike
STRATEGIES = {Strategy.QUOTA: 2.0, Strategy.SEQUENTIAL: 1.0, Strategy.THRESHOLD: 0.3}


@dataclass(frozen=True)
class Shape:
    """What is asked for, and what comes of it alone."""

    request: Generate
    expected: list[int]


@cache
def engine_of(tokens: int) -> Engine:
    """Pages for hardly more than one request of the longest."""
    slot_bytes = 2 * 3 * 2 * 16 * 4  # K and V, layers, heads, head_dim, float32
    return make_engine(
        FIXTURE,
        page_size=PAGE,
        max_num_batched_tokens=tokens,
        max_num_seqs=5,
        max_model_len=LONGEST,
        kv_pool_bytes=(LONGEST + 3 * PAGE) * slot_bytes,
        aging_steps=4,
    )


@cache
def shapes() -> list[Shape]:
    """Alone, cold, with room for everything."""
    engine, dice = make_engine(FIXTURE, max_num_seqs=1), random.Random(3)
    found = []
    for number in range(12):
        strategy = dice.choice(list(STRATEGIES))
        request = make_request(
            f"alone-{number}",
            prompt=dice.choice(TEXTS)[: dice.randint(1, 32)],
            max_tokens=dice.randint(1, 16),
            block_length=BLOCK,
            strategy=strategy,
            value=STRATEGIES[strategy],
        )
        found.append(Shape(request, run_alone(engine, salted(request, request.request_id)).tokens))
    return found


def salted(request: Generate, salt: str, name: str | None = None) -> Generate:
    fields = {field: getattr(request, field) for field in request.__struct_fields__}
    return Generate(**fields | {"cache_salt": salt, "request_id": name or request.request_id})


@dataclass
class Watch:
    """Looks at every step from outside: which pages it writes, and who holds which."""

    engine: Engine
    refuse: set[int]
    runner: FaultyRunner = field(init=False)

    def __post_init__(self) -> None:
        for left in list(self.engine._by_id):  # by an example that failed
            self.engine.cancel(left)
        self.engine.step()
        self.engine.throttle = type(self.engine.throttle)()
        self.runner = install(self.engine, self.refuse)
        launch = self.runner.launch

        def watched(batch: StepBatch, max_num_logits: int) -> object:
            self.check_writes(batch)
            return launch(batch, max_num_logits)

        self.runner.launch = watched  # type: ignore[method-assign,assignment]

    def check_writes(self, batch: StepBatch) -> None:
        store = self.engine.course.store
        held = Counter(page for slot in self.engine._running for page in store.held(slot))
        published = {page for pages in store._published.values() for page in pages}
        slots = [slot for slot, rows in zip(batch.slots, batch.lengths, strict=True) for _ in range(rows)]
        for slot, entry in zip(slots, batch.tail_slots.tolist(), strict=True):
            page = entry // PAGE
            assert page in store.held(slot)
            assert held[page] == 1
            assert page not in published

    def check_pages(self) -> None:
        store, running = self.engine.course.store, self.engine._running
        held = {page for slot in running for page in store.held(slot)}
        kept = {page for pages in store._published.values() for page in pages}
        free = set(store._free)
        assert held | kept | free == set(range(1, store.pages + 1))
        assert not free & (held | kept)
        assert store.used_pages == len(held)
        assert len(running) + len(self.engine._free_slots) == self.engine.table.slots

    def check_order(self) -> None:
        """Who came first runs first, so that the oldest is never sent back and all end at last."""
        running = [request.number for request in self.engine._running.values()]
        waiting = [request.number for request in self.engine._waiting]
        assert running + waiting == sorted(running + waiting)
        for request in self.engine._running.values():
            waited = self.engine._step - request.last_step
            bound = self.engine.aging_steps + self.engine.live.max_num_seqs
            assert self.refuse or waited <= bound  # a step out of memory serves nobody


@settings(max_examples=5, deadline=None)
@given(
    tokens=st.sampled_from([2 * BLOCK, 64]),
    seed=st.integers(0, 2**32),
    refuse=st.just(set()) | st.sets(st.integers(0, 60), max_size=5),
)
def test_a_random_schedule_conserves_pages_writes_no_shared_one_and_changes_no_text(
    tokens: int, seed: int, refuse: set[int]
) -> None:
    engine, dice = engine_of(tokens), random.Random(seed)
    watch = Watch(engine, refuse)
    outcomes: dict[str, Outcome] = {}
    asked: dict[str, Shape] = {}
    for number in range(2000):
        if number < ROUNDS and dice.random() < 0.5:
            shape = dice.choice(shapes())
            name = f"r{number}"
            asked[name] = shape
            collect(engine.submit(salted(shape.request, dice.choice(["", "tenant"]), name)), outcomes)
        if asked and number < ROUNDS and dice.random() < 0.1:
            collect(engine.cancel(dice.choice(list(asked))), outcomes)
        if number >= ROUNDS and not engine.has_work:
            break
        collect(engine.step(), outcomes)
        watch.check_pages()
        watch.check_order()

    assert not engine.has_work
    assert used_pages(engine) == 0
    assert all(len(outcomes[name].ends) == 1 for name in asked)
    for name, shape in asked.items():
        if outcomes[name].is_complete:
            assert outcomes[name].tokens == shape.expected
        else:
            assert outcomes[name].tokens == shape.expected[: len(outcomes[name].tokens)]


def test_the_schedules_share_prefixes_and_make_requests_give_way() -> None:
    """Else the property above shows little."""
    engine = engine_of(64)
    Watch(engine, set())
    before = engine.stats.preemptions, engine.course.store.counts.hit_tokens
    for turn in range(3):
        for number, shape in enumerate(shapes()):
            engine.submit(salted(shape.request, "", f"{turn}-{number}"))
    while engine.has_work:
        engine.step()

    assert engine.stats.preemptions > before[0]
    assert engine.course.store.counts.hit_tokens > before[1]
    assert engine.course.store.counts.evicted_tokens > 0
