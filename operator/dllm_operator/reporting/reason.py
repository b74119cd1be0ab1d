"""Why a condition stands as it does, or what an Event tells, in one word for programs. docs/runbook.md
explains each."""

from __future__ import annotations

from enum import StrEnum


class ConditionReason(StrEnum):
    """Of conditions, beside failures of pods and reasons of the tuner."""

    PODS_READY = "PodsReady"
    PODS_STARTING = "PodsStarting"
    PODS_NOT_READY = "PodsNotReady"
    SCALED_TO_ZERO = "ScaledToZero"
    NO_GPU_NODES = "NoGPUNodes"
    INVALID_SPEC = "InvalidSpec"
    NAME_CONFLICT = "NameConflict"
    APPLY_FAILED = "ApplyFailed"
    INTERNAL_ERROR = "InternalError"
    SETTLED = "Settled"
    ROLLING_OUT = "RollingOut"
    ROLLOUT_QUEUED = "RolloutQueued"
    ROLLOUT_BLOCKED = "RolloutBlocked"
    ROLLOUT_STOPPED = "RolloutStopped"
    ROLLED_BACK = "RolledBack"
    DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    PAUSED = "Paused"
    VALID = "Valid"
    PODS_SCHEDULED = "PodsScheduled"
    PODS_PENDING = "PodsPending"
    TUNING_OFF = "TuningOff"
    NO_LOOK_YET = "NoLookYet"
    TUNING = "Tuning"
    CHANGE_PROPOSED = "ChangeProposed"
    CONVERGED = "Converged"
    NOT_REQUESTED = "NotRequested"
    CREATED = "Created"
    CRD_MISSING = "CRDMissing"
    DOOR_OPEN = "DoorOpen"
    DOOR_STARTING = "DoorStarting"
    DOOR_NOT_READY = "DoorNotReady"
    DOOR_SILENT = "DoorSilent"


class FailureReason(StrEnum):
    """Of a pod that does not serve, in the order they are looked for."""

    OOM_KILLED = "OOMKilled"
    CUDA_OUT_OF_MEMORY = "CUDAOutOfMemory"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    START_FAILED = "StartFailed"
    CRASH_LOOP = "CrashLoop"
    EVICTED = "Evicted"
    POD_FAILED = "PodFailed"
    PODS_REFUSED = "PodsRefused"
    UNSCHEDULABLE = "Unschedulable"
    NODE_LOST = "NodeLost"
    VOLUMES_NOT_MOUNTED = "VolumesNotMounted"


class NewsReason(StrEnum):
    """Of Events that no condition tells."""

    EDIT_UNDONE = "EditUndone"
    DRIFTED = "Drifted"
    MANAGED_BY_ANOTHER = "ManagedByAnother"
