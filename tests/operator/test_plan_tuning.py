"""What a pool's tuning makes of its children."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from dllm_operator.cluster.labels import TUNING_RESTART
from dllm_operator.cluster.observe import Manifest, Observed
from dllm_operator.planning.plan import Plan, plan
from dllm_operator.render import render
from dllm_operator.tuning.record import PoolTuning
from dllm_operator.tuning.setting import Setting
from dllm_server.settings import TuningFile

from tests.operator.objects import DEFAULTS, make_gpu, make_observed, make_resource, make_spec, only

AUTO: dict[str, Any] = {"tuning": {"mode": "Auto"}, "engine": {"maxNumBatchedTokens": 2048}}
MOVED = Setting(1500, 96, 1024, 0.25, 9 << 30)


def planned(spec: dict[str, Any], tuning: PoolTuning | None = None) -> Plan:
    return plan("chat", make_spec(**spec), observed(tuning))


def observed(tuning: PoolTuning | None) -> Observed:
    return make_observed(gpu_types=(make_gpu(),), tunings={"l40s": tuning} if tuning else {})


def children(spec: dict[str, Any], tuning: PoolTuning) -> tuple[Manifest, ...]:
    resource = make_resource(**spec)
    assert resource.spec is not None
    return render(resource, resource.spec, planned(spec, tuning), DEFAULTS)


def begun() -> PoolTuning:
    [pool] = planned(AUTO).pools
    assert pool.tuning is not None
    return pool.tuning


def changed(**state: Any) -> PoolTuning:
    tuning = begun()
    return replace(
        tuning, memory=replace(tuning.memory, max_model_len=4096, state=replace(tuning.state, **state))
    )


def template(manifests: tuple[Manifest, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """The engine's plain variables, and the pods' annotations."""
    found = only(manifests, "Deployment")["spec"]["template"]
    [container] = found["spec"]["containers"]
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    return env, found["metadata"].get("annotations", {})


def file(manifests: tuple[Manifest, ...]) -> TuningFile:
    [text] = only(manifests, "ConfigMap")["data"].values()
    return TuningFile.model_validate(json.loads(text))


def test_a_pool_begins_with_what_its_engine_block_says() -> None:
    assert begun().state.setting.max_num_batched_tokens == 2048
    assert begun().state.generation == 0


def test_a_live_change_reaches_the_file_and_no_pod() -> None:
    tuning = changed(setting=MOVED, generation=3)

    document = file(children(AUTO, tuning))

    assert (document.generation, document.max_num_batched_tokens, document.max_num_seqs) == (3, 1500, 96)
    assert (document.max_num_logits, document.refresh_share) == (1024, 0.25)
    assert template(children(AUTO, tuning)) == template(children(AUTO, begun()))


def test_a_restart_changes_what_pods_start_with_and_pins_the_length_served() -> None:
    tuning = changed(setting=MOVED, started=MOVED, generation=4, restart_generation=4)

    env, annotations = template(children(AUTO, tuning))

    assert annotations == {TUNING_RESTART: "4"}
    assert env["DLLM_KV_POOL_BYTES"] == str(9 << 30)
    assert (env["DLLM_MAX_NUM_BATCHED_TOKENS"], env["DLLM_MAX_NUM_SEQS"]) == ("4096", "96")
    assert (env["DLLM_MAX_NUM_LOGITS"], env["DLLM_MAX_MODEL_LEN"]) == ("1024", "4096")


def test_a_later_live_change_starts_no_rollout() -> None:
    restarted = changed(setting=MOVED, started=MOVED, generation=4, restart_generation=4)
    state = replace(restarted.state, setting=replace(MOVED, max_num_batched_tokens=800), generation=5)
    later = replace(restarted, memory=replace(restarted.memory, state=state))

    assert template(children(AUTO, later)) == template(children(AUTO, restarted))
    assert file(children(AUTO, later)).max_num_batched_tokens == 800


def test_off_and_observe_render_as_if_nothing_were_known() -> None:
    tuning = changed(setting=MOVED, started=MOVED, generation=4, restart_generation=4)
    plain = children({"engine": AUTO["engine"]}, begun())

    for mode in ("Off", "Observe"):
        spec = AUTO | {"tuning": {"mode": mode}}
        assert template(children(spec, tuning)) == template(plain)
        assert file(children(spec, tuning)).generation == 0


def test_what_was_learned_outlives_a_time_of_being_off() -> None:
    tuning = changed(setting=MOVED, generation=3)

    [off] = planned(AUTO | {"tuning": {"mode": "Off"}}, tuning).pools
    [on] = planned(AUTO, off.tuning).pools

    assert on.tuning is tuning
