"""When an overload is over."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.gpu.session import Sample


def recovery_seconds(samples: Sequence[Sample], overload_end: float) -> float | None:
    """From the end of the overload to the first step with an empty queue; None if there is none."""
    for sample in samples:
        if sample.seconds >= overload_end and sample.waiting == 0:
            return sample.seconds - overload_end
    return None
