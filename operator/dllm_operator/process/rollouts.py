"""Turns of all pools to roll out: counts those taken, keeps those that wait in order, wakes the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from dllm_operator.api.v1alpha1 import DLLMDeploymentSpec
from dllm_operator.cluster.cluster_view import ClusterView, ResourceKey
from dllm_operator.cluster.kinds import DEPLOYMENT
from dllm_operator.cluster.labels import POOL
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.plan import PoolPlan
from dllm_operator.planning.rollout import REVISION, Progress, is_complete, progress
from dllm_operator.planning.rollout_record import author_digest, record_of, template_digest
from dllm_operator.planning.turns import Others, PoolNow, Step, Verdict, Wish, following, judge, stopping
from dllm_operator.reporting.failures import is_serving, worst_failure

DeploymentKey = tuple[str, str]  # namespace, name


class Rollouts:
    """What rolls is read from the Deployments, so that a new leader goes on where the former one was. Only
    the order of those that wait, and turns given a moment ago, are kept here."""

    def __init__(
        self, view: ClusterView, limit: int, release: str, wake: Callable[[ResourceKey], None]
    ) -> None:
        self._view, self._limit, self._release, self._wake = view, limit, release, wake
        self._given: set[DeploymentKey] = set()
        self._queued: dict[DeploymentKey, ResourceKey] = {}
        self._stopped: set[ResourceKey] = set()
        self._verdicts: dict[ResourceKey, dict[str, Verdict]] = {}

    def decide(
        self,
        resource: Resource,
        spec: DLLMDeploymentSpec,
        pools: Sequence[PoolPlan],
        manifests: Iterable[Manifest],
    ) -> dict[str, Step]:
        """By Deployment, of all children as rendered. Turns given here are held until ``written``."""
        key = (resource.namespace, resource.name)
        templates = {
            each["metadata"]["name"]: each["spec"]["template"]
            for each in manifests
            if each["kind"] == DEPLOYMENT.kind
        }
        lives = dict(self._view.children[DEPLOYMENT.kind].owned(key))
        serving = Counter(pod["metadata"]["labels"].get(POOL) for pod in self._pods(key) if is_serving(pod))
        found = {
            pool.deployment: pool_now(lives[pool.deployment], serving[pool.name])
            for pool in pools
            if pool.deployment in lives
        }
        rolling, stopped_by = self._rolling(), self._stopped_by()
        steps: dict[str, Step] = {}
        for pool in pools:
            name = pool.deployment
            wish = Wish(template_digest(templates[name]), author_digest(spec, pool.name), self._release)
            free = self._free((resource.namespace, name), rolling)
            others = Others(free, _sibling(name, pools, found, steps), stopped_by)
            now = found.get(name)
            verdict = judge(now, wish, others, is_paused=spec.rollout.pause)
            why = worst_failure(self._pods(key, pool.name)) if verdict is Verdict.BACK else None
            other = {Verdict.FOLLOW: others.sibling, Verdict.STOPPED: others.stopped_by}.get(verdict)
            steps[name] = Step(verdict, following(now, wish, verdict, str(why) if why else ""), other or "")
            self._note((resource.namespace, name), key, verdict)
        self._verdicts[key] = {name: step.verdict for name, step in steps.items()}
        is_stopped = any(step.verdict is Verdict.STOPPED for step in steps.values())
        (self._stopped.add if is_stopped else self._stopped.discard)(key)
        return steps

    def is_settled(self, resource: Resource, steps: Mapping[str, Step]) -> bool:
        """Whether no pod of a former template is left, nor one to come back."""
        lives = self._view.children[DEPLOYMENT.kind].objects
        found = [lives.get((resource.namespace, name)) for name in steps]
        has_settled = all(live is None or progress(live) is Progress.SETTLED for live in found)
        return has_settled and all(step.verdict is Verdict.APPLY for step in steps.values())

    def written(self, namespace: str, steps: Iterable[str]) -> None:
        """The Deployments say themselves now that they roll."""
        self._given -= {(namespace, name) for name in steps}

    def forget(self, key: ResourceKey) -> None:
        """Of a resource that has nothing to roll out: it waits for no turn."""
        self._queued = {name: owner for name, owner in self._queued.items() if owner != key}
        self._stopped.discard(key)
        self._verdicts.pop(key, None)

    def verdict(self, key: ResourceKey, deployment: str) -> Verdict | None:
        """The last one about that pool of the resource."""
        return self._verdicts.get(key, {}).get(deployment)

    def wake_next(self) -> None:
        """Those whose turn it is, and those that nothing stops any more."""
        if self._queued:
            free = self._limit - len(self._rolling() | self._given)
            for owner in list(self._queued.values())[: max(free, 0)]:
                self._wake(owner)
        if self._stopped and self._stopped_by() is None:
            for owner in self._stopped:
                self._wake(owner)

    def restart_hindrance(self, spec: DLLMDeploymentSpec) -> str | None:
        """What has to come before a restart that nobody asked for."""
        if spec.rollout.pause:
            return "the end of spec.rollout.pause"
        if len(self._rolling() | self._given) + len(self._queued) >= self._limit:
            return f"a turn to roll out: {self._limit} pools at most at a time"
        return None

    def _note(self, name: DeploymentKey, owner: ResourceKey, verdict: Verdict) -> None:
        if verdict is Verdict.QUEUED:
            self._queued.setdefault(name, owner)
        else:
            self._queued.pop(name, None)
        if verdict is Verdict.TAKE_TURN:
            self._given.add(name)

    def _free(self, name: DeploymentKey, rolling: set[DeploymentKey]) -> int:
        """Turns left once those that wait longer have theirs."""
        order = list(self._queued)
        ahead = order.index(name) if name in self._queued else len(order)
        return self._limit - len((rolling | self._given) - {name}) - ahead

    def _rolling(self) -> set[DeploymentKey]:
        return {key for key, now in self._in_turn() if now.is_rolling_in_turn}

    def _stopped_by(self) -> str | None:
        return stopping(((f"{key[0]}/{key[1]}", now) for key, now in self._in_turn()), self._release)

    def _in_turn(self) -> Iterator[tuple[DeploymentKey, PoolNow]]:
        """Pools that have had a turn, or have gone back from one."""
        for (namespace, name), live in list(self._view.children[DEPLOYMENT.kind].objects.items()):
            record = record_of(live)
            if record is not None and (record.has_turn or record.undone is not None):
                yield (namespace, name), PoolNow(progress(live), record)

    def _pods(self, key: ResourceKey, pool: str | None = None) -> list[Manifest]:
        pods = self._view.pods.owned(key).values()
        return [pod for pod in pods if pool in (None, pod["metadata"]["labels"].get(POOL))]


def release_name(server_image: str) -> str:
    """What templates are made of beside the resources: the default image and this version of the operator."""
    try:
        return f"{server_image} (dllm-operator {version('dllm-serve')})"
    except PackageNotFoundError:  # run from a checkout
        return server_image


def pool_now(live: Manifest, serving: int = 0) -> PoolNow:
    """A live Deployment, of which ``serving`` pods serve."""
    revision = (live["metadata"].get("annotations") or {}).get(REVISION, "")
    return PoolNow(progress(live), record_of(live), serving, is_complete(live), revision)


def _sibling(
    name: str, pools: Iterable[PoolPlan], found: Mapping[str, PoolNow], steps: Mapping[str, Step]
) -> str | None:
    """The pool of the resource that has to come to its end first."""
    for pool in pools:
        if pool.deployment != name and _is_at_stake(found.get(pool.deployment), steps.get(pool.deployment)):
            return pool.name
    return None


def _is_at_stake(now: PoolNow | None, step: Step | None) -> bool:
    if now is None:
        return False
    if step is None or step.record is None:
        return now.is_at_stake
    has_begun = now.record is None or step.record.template != now.record.template
    return bool(step.record.good_revision) and (has_begun or now.is_at_stake)
