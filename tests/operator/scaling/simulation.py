"""A door with one queue before pods that take their time to start: arrivals by a curve, service times that
vary."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sin, tau

from dllm_operator.scaling.demand import Look
from dllm_operator.scaling.mix import Pool, cheapest
from dllm_operator.scaling.policy import Rules, ScalingReason, ScalingState, Target, decide

LOOK_SECONDS = 15.0
Rate = Callable[[float], float]  # requests a second at a time
Control = Callable[[Look, Mapping[str, int], Mapping[str, int]], Target]


@dataclass(frozen=True, slots=True)
class Kind:
    """A pool, what the engine of one of its pods runs at once, and how fast it is."""

    pool: Pool
    slots: int
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """Nineteen of twenty requests are to wait ``patience`` seconds at most."""

    kinds: tuple[Kind, ...]
    rate: Rate
    patience: float = 30.0
    start_seconds: float = 60.0
    service_seconds: float = 20.0
    seconds: float = 7200.0

    @property
    def pools(self) -> tuple[Pool, ...]:
        return tuple(kind.pool for kind in self.kinds)


@dataclass(slots=True, eq=False)
class _Pod:
    kind: Kind
    ready_at: float
    running: int = 0
    is_leaving: bool = False


@dataclass(slots=True)
class Course:
    """What happened. ``reasons`` are those of each look, ``cost`` counts each until its last
    request."""

    waits: list[float] = field(default_factory=list)
    reasons: list[ScalingReason] = field(default_factory=list)
    cost: float = 0.0

    def wait(self, share: float) -> float:
        return sorted(self.waits)[int(share * len(self.waits))] if self.waits else 0.0

    def turns(self, within: float) -> int:
        """How often pods were missed within so many seconds after others had gone."""
        found, gone_at = 0, -within
        for number, reason in enumerate(self.reasons):
            at = number * LOOK_SECONDS
            if reason is ScalingReason.SHRINKS:
                gone_at = at
            elif reason is ScalingReason.GROWS:
                found += at - gone_at < within
                gone_at = -within
        return found


class Fleet:
    """Pods and the queue before them."""

    def __init__(self, case: Case, seed: int) -> None:
        self._case, self._random = case, random.Random(seed)
        self._pods = [_Pod(kind, 0.0) for kind in case.kinds for _ in range(kind.pool.fewest)]
        self._queue: deque[tuple[float, float]] = deque()  # when it came, how long it takes
        self._ends: list[tuple[float, int, _Pod]] = []
        self._arrived = self._finished = 0
        self.course = Course()

    def run(self, arrivals: Sequence[float], control: Control) -> Course:
        number, now, case = 0, 0.0, self._case
        while now <= case.seconds:
            until = now + LOOK_SECONDS
            starts = deque(sorted(pod.ready_at for pod in self._pods if now < pod.ready_at <= until))
            while True:
                following = arrivals[number] if number < len(arrivals) else until + 1
                ended = self._ends[0][0] if self._ends else until + 1
                started = starts[0] if starts else until + 1
                at = min(following, ended, started)
                if at > until:
                    break
                if at == following:
                    self._queue.append((at, self._random.expovariate(1 / case.service_seconds)))
                    self._arrived, number = self._arrived + 1, number + 1
                elif at == ended:
                    heapq.heappop(self._ends)[2].running -= 1
                    self._finished += 1
                else:
                    starts.popleft()
                self._place(at)
            now = until
            self._scale(now, control)
        return self.course

    def _place(self, now: float) -> None:
        while self._queue:
            free = [
                pod
                for pod in self._pods
                if not pod.is_leaving and pod.ready_at <= now and pod.running < pod.kind.slots
            ]
            if not free:
                return
            pod = min(free, key=lambda pod: pod.running / pod.kind.slots / pod.kind.speed)
            came, takes = self._queue.popleft()
            pod.running += 1
            self.course.waits.append(now - came)
            heapq.heappush(self._ends, (now + takes / pod.kind.speed, id(pod), pod))

    def _scale(self, now: float, control: Control) -> None:
        running = sum(pod.running * pod.kind.speed for pod in self._pods)
        staying = {
            kind: [pod for pod in self._pods if pod.kind is kind and not pod.is_leaving]
            for kind in self._case.kinds
        }
        look = Look(now, len(self._queue), running, self._arrived, self._finished)
        pods = {kind.pool.name: len(own) for kind, own in staying.items()}
        ready = {kind.pool.name: sum(pod.ready_at <= now for pod in own) for kind, own in staying.items()}
        target = control(look, pods, ready)
        for kind, own in staying.items():
            more = target.pods[kind.pool.name] - len(own)
            self._pods += [_Pod(kind, now + self._case.start_seconds) for _ in range(more)]
            for pod in sorted(own, key=lambda pod: (pod.ready_at <= now, pod.running))[: max(-more, 0)]:
                pod.is_leaving = True
        self._pods = [pod for pod in self._pods if pod.running or not pod.is_leaving]
        self.course.reasons.append(target.reason)
        self.course.cost += sum(pod.kind.pool.cost for pod in self._pods) * LOOK_SECONDS


def by_policy(case: Case, rules: Rules) -> Control:
    state = ScalingState()

    def control(look: Look, pods: Mapping[str, int], ready: Mapping[str, int]) -> Target:
        nonlocal state
        state, target = decide(state, look, case.pools, pods, ready, rules)
        return target

    return control


def by_oracle(case: Case, rules: Rules, utilization: float) -> Control:
    """Knows the arrivals to come: has pods ready in time, and keeps them as long as the policy has to."""

    def control(look: Look, pods: Mapping[str, int], ready: Mapping[str, int]) -> Target:
        first, last = look.at_seconds - rules.stabilization_seconds, look.at_seconds + case.start_seconds
        times = [first + (last + LOOK_SECONDS - first) * step / 20 for step in range(21)]
        steady = max(case.rate(min(max(at, 0.0), case.seconds)) for at in times) * case.service_seconds
        return Target(cheapest(case.pools, steady / utilization), ScalingReason.ENOUGH, steady)

    return control


def serve(case: Case, control: Control, *, seed: int) -> Course:
    return Fleet(case, seed).run(arrivals(case, seed), control)


def oracle(case: Case, rules: Rules, *, seed: int) -> Course:
    """The fullest fleet of one that knows the future with which nobody is kept waiting for long."""
    for percent in range(105, 45, -5):
        course = serve(case, by_oracle(case, rules, percent / 100), seed=seed)
        if course.wait(0.95) <= case.patience:
            return course
    raise AssertionError("nobody can keep the objective")


def arrivals(case: Case, seed: int) -> list[float]:
    """Poisson, by thinning."""
    chance, found, now = random.Random(seed), [], 0.0
    most = 1.05 * max(case.rate(case.seconds * step / 1000) for step in range(1001))
    while (now := now + chance.expovariate(most)) < case.seconds:
        if chance.random() < case.rate(now) / most:
            found.append(now)
    return found


def day(mean: float, swing: float, period: float) -> Rate:
    return lambda at: mean - swing * sin(tau * (at / period + 0.25))


def bursts(calm: float, busy: float, every: float, lasts: float) -> Rate:
    return lambda at: busy if at >= every / 2 and (at - every / 2) % every < lasts else calm
