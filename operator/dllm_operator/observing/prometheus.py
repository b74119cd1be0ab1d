"""The pods' series from a Prometheus server instead of from the pods."""

from __future__ import annotations

import asyncio
import json
import math
from collections import defaultdict
from collections.abc import Collection
from typing import Any

import aiohttp

from dllm_operator.observing.scrape import MOST_BYTES, TIMEOUT_SECONDS, Scrape, bounded_body
from dllm_operator.tuning.reading import Labels, ReadingError, reading_of

_OF_THE_TARGET = frozenset(
    {"__name__", "job", "instance", "namespace", "pod", "container", "endpoint", "node"}
)


async def query(session: aiohttp.ClientSession, url: str, namespace: str, pods: Collection[str]) -> Scrape:
    """The newest samples of each of ``pods``; one that Prometheus does not know is silent. Raises nothing
    but cancellation."""
    names = "|".join(sorted(pods))
    selector = f'{{__name__=~"dllm_.+",namespace="{namespace}",pod=~"{names}"}}'
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            samples = await _samples(session, url, selector)
    except TimeoutError:
        return _silent(pods, f"Prometheus did not answer within {TIMEOUT_SECONDS:g} s")
    except aiohttp.ClientError as error:
        return _silent(pods, f"Prometheus: {type(error).__name__}")
    except ReadingError as error:
        return _silent(pods, f"Prometheus: {error}")
    result = Scrape()
    for pod in pods:
        try:
            if pod not in samples:
                raise ReadingError("Prometheus has no series of it")
            result.readings[pod] = reading_of(samples[pod])
        except ReadingError as error:
            result.silent[pod] = str(error)
    return result


async def _samples(
    session: aiohttp.ClientSession, url: str, selector: str
) -> dict[str, dict[str, dict[Labels, float]]]:
    """By pod, name and labels."""
    async with session.get(f"{url.rstrip('/')}/api/v1/query", params={"query": selector}) as response:
        body = await bounded_body(response, MOST_BYTES)
    try:
        return _by_pod(body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReadingError("no answer of its query API") from error


def _by_pod(body: str) -> dict[str, dict[str, dict[Labels, float]]]:
    document = json.loads(body)
    found: dict[str, Any] = defaultdict(lambda: defaultdict(dict))
    for sample in document["data"]["result"]:
        labels = dict(sample["metric"])
        own = tuple(sorted((name, text) for name, text in labels.items() if name not in _OF_THE_TARGET))
        value = float(sample["value"][1])
        found[labels["pod"]][labels["__name__"]][own] = value if math.isfinite(value) else math.nan
    return found


def _silent(pods: Collection[str], reason: str) -> Scrape:
    return Scrape(silent=dict.fromkeys(pods, reason))
