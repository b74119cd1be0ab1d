"""The engine's loop body: schedule, run, commit, publish. Synchronous, single-threaded, free of sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import structlog

from dllm_server.engine.accounts.device_memory import is_out_of_memory
from dllm_server.engine.accounts.soundness import Soundness
from dllm_server.engine.accounts.stats import EngineStats, step_kind
from dllm_server.engine.accounts.windows import StepRecord
from dllm_server.engine.device.model_runner import ModelRunner
from dllm_server.engine.device.pending_step import StepResult
from dllm_server.engine.launched import (
    Launched,
    block_outcomes,
    canvases_of,
    follow_markers,
    is_finite_score,
    note_alternatives,
    scored,
)
from dllm_server.engine.requests.admission import Capacity
from dllm_server.engine.requests.messages import (
    Failed,
    FailureReason,
    Finished,
    FinishReason,
    FromEngine,
    Generate,
    Score,
)
from dllm_server.engine.requests.publish import block_committed, canvas_update, stop_token
from dllm_server.engine.requests.queue import Queue
from dllm_server.engine.requests.request import Phase, Request
from dllm_server.engine.requests.slots import SlotTable
from dllm_server.engine.schedule.batch import build_batch
from dllm_server.engine.schedule.course import Course
from dllm_server.engine.schedule.scheduler import Limits, StepPlan, schedule
from dllm_server.engine.schedule.throttle import Throttle
from dllm_server.settings import LiveSettings
from dllm_server.structure.grammars import Grammars

log = structlog.get_logger(__name__)

_COMPILING_SECONDS = 0.005  # that a step without work waits for a grammar


@dataclass(slots=True)
class Engine:
    """Requests in, messages out.

    ``submit`` and ``cancel`` act between steps; ``step`` runs one. Each returns the messages to send.
    Whatever ends a request gives its slot and pages back before the message is returned. The device runs
    steps in the order of their launches, so that a step on its way disturbs nobody who gets them next.

    ``runs_ahead``: launch a step before the result of the one before it is read, wherever that result cannot
    change the plan, so that the device does not wait for the host. A stop token it could not know of costs
    its request's rows of one step.
    """

    runner: ModelRunner
    course: Course
    capacity: Capacity
    grammars: Grammars
    live: LiveSettings
    aging_steps: int
    clock: Callable[[], float]
    stats: EngineStats = field(init=False)
    throttle: Throttle = field(default_factory=Throttle)
    soundness: Soundness = field(default_factory=Soundness)
    runs_ahead: bool = False
    last_step: StepRecord | None = None  # None: the last call of ``step`` launched nothing
    _waiting: Queue = field(init=False)
    _running: dict[int, Request] = field(default_factory=dict)  # by slot, in order of admission
    _by_id: dict[str, Request] = field(default_factory=dict)
    _free_slots: list[int] = field(default_factory=list)
    _deficit: float = 0.0
    _step: int = 0
    _launched: Launched | None = None  # its result is still to be read
    _collected_seconds: float = 0.0
    _recorded_tokens: int = 0
    _arrived: int = 0

    def __post_init__(self) -> None:
        self.stats = EngineStats(self.course.phases)
        self._free_slots = list(range(self.table.slots - 1, -1, -1))
        self._waiting = Queue(self.grammars)

    @property
    def table(self) -> SlotTable:
        return self.course.table

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running or self._launched)

    @property
    def requests_waiting(self) -> int:
        return len(self._waiting)

    @property
    def requests_running(self) -> int:
        return len(self._running)

    @property
    def requests_by_phase(self) -> dict[str, int]:
        """Requests in flight, and those that wait."""
        found = Counter(request.phase for request in self._by_id.values())
        return {str(phase): found[phase] for phase in (Phase.WAITING, *self.course.phases, Phase.DRAINING)}

    @property
    def token_budget(self) -> int:
        """Query tokens the next step may hold. A setting or an OOM below what a running request needs at
        once yields to it."""
        configured = self.live.max_num_batched_tokens
        budget = configured if self.throttle.tokens is None else min(configured, self.throttle.tokens)
        running = self._running.values() or list(self._waiting)[:1]
        return max(budget, *map(self.course.least_tokens, running), 0)

    @property
    def floor_tokens(self) -> int:
        """Most that a request in flight needs at once, 0 without one. The token budget must reach it at
        last."""
        return max(map(self.course.least_tokens, self._by_id.values()), default=0)

    def is_open(self, request_id: str) -> bool:
        """Whether a request waits or runs."""
        return request_id in self._by_id

    def retune(self, live: LiveSettings) -> None:
        """Apply other live settings from the next step on. Running requests go on, whatever the limits."""
        self.live = live
        self.stats.step_times.warm_up()

    def submit(self, message: Generate | Score) -> list[FromEngine]:
        """Queue a request, or refuse one that can never fit."""
        if isinstance(message, Score):
            problem = self.capacity.score_refusal(message)
            request = Request.to_score(message, self.clock(), last_step=self._step)
        else:
            problem = self.capacity.refusal(message)
            pages, grid = self.capacity.pages_for(message), self.capacity.grid or 1
            request = Request(message, self.clock(), pages, grid=grid, last_step=self._step)
        if message.request_id in self._by_id:
            problem = f"request id {message.request_id} is already in use"
        if problem is not None:
            self.stats.refused += 1
            return [Failed(message.request_id, FailureReason.TOO_LARGE, problem)]
        self._arrived += 1
        request.number = self._arrived
        self.course.arrive(request)
        self._waiting.append(request)
        self._by_id[message.request_id] = request
        return []

    def cancel(self, request_id: str) -> list[FromEngine]:
        """End a request at once; unknown ids (already ended) are ignored."""
        if (request := self._by_id.get(request_id)) is None:
            return []
        self.stats.cancelled += 1
        if request.phase is Phase.WAITING:
            self._waiting.remove(request)
        self._release(request)
        return [Finished(request_id, FinishReason.CANCELLED, request.stats())]

    def step(self) -> list[FromEngine]:
        """Plan and launch one step; collect the one before it, and this one too where the next plan depends
        on it.

        An out-of-memory error puts the step's requests back unchanged and shrinks the budget.
        """
        self.last_step = None
        outgoing = self._settle()
        budget = self.token_budget
        while (plan := self._plan(budget)).preempted:
            outgoing += self._collect_last()  # what a request has committed goes with it
            self._preempt(plan.preempted)
        if plan.is_empty:
            return outgoing + self._collect_last()
        self._step += 1
        self._deficit = plan.deficit
        planned = plan.long | plan.short | self._admit(plan.admitted)
        for slot, tokens in planned.items():
            self.course.place(self._running[slot], tokens)
        refreshing = {slot: self.course.refreshes(self._running[slot]) for slot in planned}
        refresh = np.array([slot for slot in planned if refreshing[slot]], np.int64)
        others = np.array([slot for slot in planned if not refreshing[slot]], np.int64)
        slots, kind = [*planned], step_kind(self._running[slot].phase for slot in planned)
        started = self.clock()
        try:
            self.course.growth.tell(self.runner.grow)
            batch = build_batch(refresh, others, self.table)
            pending = self.runner.launch(batch, self.live.max_num_logits)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            batch = None
        if batch is None:  # outside the handler: the exception holds the step's tensors
            return outgoing + self._collect_last() + self._contain_oom(slots, plan.tokens, kind)
        requests = [self._running[slot] for slot in batch.slots.tolist()]
        forward_seconds = self.runner.forward_seconds
        launched = Launched.of(pending, batch, requests, self.course, budget, started, forward_seconds)
        self._advance(launched)
        outgoing += self._collect_last()
        self._launched = launched
        if not (self.runs_ahead and launched.is_predictable):
            outgoing += self._collect_last()
        committed = self.stats.committed_tokens - self._recorded_tokens
        logits_rows = min(batch.logits_rows, self.live.max_num_logits)
        self.last_step = launched.record(logits_rows, committed, is_tight=plan.is_tight)
        self._recorded_tokens = self.stats.committed_tokens
        return outgoing

    def _settle(self) -> list[FromEngine]:
        """Queue the requests whose grammars have been compiled since."""
        idle_seconds = 0.0 if self._running or self._launched else _COMPILING_SECONDS
        refused = self._waiting.settle(idle_seconds)
        return [self._fail(request, FailureReason.GRAMMAR, why) for request, why in refused]

    def _plan(self, budget: int) -> StepPlan:
        course, store = self.course, self.course.store
        running = [
            course.cost(request, self._step - request.last_step)
            for request in self._running.values()
            if request.phase is not Phase.DRAINING
        ]
        limits = Limits(
            token_budget=budget,
            refresh_share=self.live.refresh_share,
            aging_steps=self.aging_steps,
            free_slots=min(self.live.max_num_seqs, self.table.slots) - len(self._running),
            free_pages=store.free_pages,
            watermark_pages=int(self.live.admission_watermark * store.pages),
            waiting=len(self._waiting),
            free_tokens=course.token_cost.free_tokens,
        )
        return schedule(running, course.queue(self._waiting, self._step), limits, self._deficit, store.frees)

    def _admit(self, pieces: Iterable[int]) -> dict[int, int]:
        """The head of the queue, and so on; the slots with the tokens of their first steps."""
        admitted = {}
        for tokens in pieces:
            request = self._waiting.popleft()
            request.slot = self._free_slots.pop()
            request.admitted_seconds = request.admitted_seconds or self.clock()
            self.course.admit(request)
            self._running[request.slot] = request
            self.runner.start(request.slot)
            admitted[request.slot] = tokens
        return admitted

    def _preempt(self, slots: Iterable[int]) -> None:
        """Send requests back to the head of the queue with what they have committed. Not those that have
        ended meanwhile."""
        going = [self._running[slot] for slot in slots if slot in self._running]
        for request in sorted(going, key=lambda request: -request.number):
            request.saved = self.table.save(request)
            self.stats.preemptions += 1
            self._leave_slot(request)
            request.enter(Phase.WAITING)
            self.course.arrive(request)
            self._waiting.appendleft(request)

    def _advance(self, launched: Launched) -> None:
        """Count the step for its requests, and let those whose outcome is known go on before it is there."""
        self.table.step[launched.batch.slots] += 1
        for request, commits in zip(launched.requests, launched.commits, strict=True):
            request.count_launch(self._step)
            if launched.is_predictable and commits is not None:
                self.course.go_on(request, request.masks_left - commits)

    def _collect_last(self) -> list[FromEngine]:
        """Wait for the step that was launched last, if it is still to be read, and publish its commits."""
        launched, self._launched = self._launched, None
        if launched is None:
            return []
        result = launched.pending.result()
        outgoing = self._apply(launched, result)
        self.throttle.count_quiet_step(self.live.max_num_batched_tokens)
        now = self.clock()
        seconds = now - max(launched.started_seconds, self._collected_seconds)
        self._collected_seconds = now
        self.stats.count_step(
            launched.batch, launched.phases, launched.budget, seconds, launched.forward_seconds
        )
        return outgoing

    def _apply(self, launched: Launched, result: StepResult) -> list[FromEngine]:
        """Bring the host's table up to date. Requests that ended since the launch are passed over: their
        slots may be others' by now."""
        batch, table, now = launched.batch, self.table, self.clock()
        live = [i for i, request in enumerate(launched.requests) if request.phase is not Phase.FINISHED]
        rows = np.array(live, np.int64)
        slots, tokens = batch.slots[rows], result.tokens[rows]
        edits = table.commit(slots, batch.open_starts[rows], tokens, result.logprobs[rows])
        self.stats.committed_tokens += int((tokens >= 0).sum() - edits.sum())
        note_alternatives(launched, result.tokens, result.alternatives)
        follow_markers(launched, table, live, renew=self.runner.renew)
        canvases = canvases_of(launched, table, live, result.logprobs)
        outgoing: list[FromEngine] = []
        for told in block_outcomes(launched, table, rows, tokens, edits):
            index, request, start = told.index, told.request, told.start
            request.count_result(launched.phases[index], now)
            if told.breaks or (request.score is not None and not is_finite_score(index, result.scores)):
                outgoing.append(self._fail_not_finite(request))
                continue
            if (problem := launched.problems[index]) is not None:
                outgoing.append(self._fail(request, FailureReason.GRAMMAR, problem))
                continue
            if request.score is not None and result.scores is not None:
                self._release(request)
                self.soundness.note_finished()
                outgoing.append(scored(request, request.score, index, result.scores))
                continue
            self.course.publish(request, launched.final[index])
            end = min(start + told.length, request.limit)
            if index in canvases:
                outgoing.append(canvas_update(request, launched.phases[index], canvases[index]))
            is_final = not told.shown
            if request.edits:  # what has been committed may change until the block is done
                is_final = self.course.go_on(request, told.masks, edits=told.edited)
            if told.ended >= 0 and (is_final or not request.edits):
                outgoing += self._finish(request, start, told.ended, FinishReason.STOP)
                continue
            if is_final and end == request.limit:
                outgoing += self._finish(request, start, end, FinishReason.LENGTH)
                continue
            if is_final:
                outgoing.append(block_committed(table, request, start, end))
            if not (launched.is_predictable or request.edits):
                self.course.go_on(request, told.masks, edits=told.edited)
        return outgoing

    def _finish(self, request: Request, start: int, end: int, reason: FinishReason) -> list[FromEngine]:
        published = block_committed(self.table, request, start, end)
        stop = stop_token(self.table, request, end) if reason is FinishReason.STOP else None
        self._release(request)
        self.soundness.note_finished()
        finished = Finished(request.request_id, reason, request.stats(), stop)
        return [published, finished] if published.token_ids else [finished]

    def _fail_not_finite(self, request: Request) -> Failed:
        """End a request whose tokens would be arbitrary. Who shares its K/V comes to the same end."""
        self.course.store.withdraw(request.slot)
        self.soundness.note_not_finite()
        message = "the model computed a NaN or an infinity for this request: its tokens would be arbitrary"
        return self._fail(request, FailureReason.NOT_FINITE, message)

    def _fail(self, request: Request, reason: FailureReason, message: str) -> Failed:
        stats = request.stats()
        self._release(request)
        return Failed(request.request_id, reason, message, stats)

    def _release(self, request: Request) -> None:
        """Give back what the request holds; the one way out."""
        was_running = request.phase is not Phase.WAITING
        request.enter(Phase.FINISHED)
        del self._by_id[request.request_id]
        if was_running:
            self._leave_slot(request)

    def _leave_slot(self, request: Request) -> None:
        del self._running[request.slot]
        self.course.store.release(request.slot)
        self.table.clear(request.slot)
        self._free_slots.append(request.slot)

    def _contain_oom(self, slots: list[int], tokens: int, kind: str) -> list[FromEngine]:
        """Halve the budget. Where that cannot make the step smaller it runs once more, and then a request
        fails with 503: the one that ran alone, or the largest, which holds the budget up."""
        self.runner.release_cached_memory()
        self.stats.oom[kind] += 1
        slots = [slot for slot in slots if slot in self._running]  # not those that have ended meanwhile
        self.stats.step_times.warm_up()
        self.last_step = StepRecord(tokens, len(slots), 0, 0, 0.0, is_out_of_memory=True)
        if not slots:
            return []
        largest = max(self._running.values(), key=self.course.least_tokens)
        target = max(tokens // 2, self.course.least_tokens(largest))
        log.warning(
            "out of memory in a step", phase=kind, tokens=tokens, requests=len(slots), next_budget=target
        )
        if target < tokens:
            self.throttle.shrink(target)
            return []
        if not self.throttle.has_retried:  # the allocator has just given its cached memory back
            self.throttle.has_retried = True
            return []
        self.throttle.has_retried = False
        failing = self._running[slots[0]] if len(slots) == 1 else largest
        message = (
            f"out of device memory with {failing.sequence_tokens} tokens: try again or send a shorter request"
        )
        return [self._fail(failing, FailureReason.OUT_OF_MEMORY, message)]
