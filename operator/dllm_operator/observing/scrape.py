"""Reads ``/metrics`` of many pods at once, within bounds. A pod that fails says why and stops nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp

from dllm_operator.tuning.reading import PodReading, ReadingError, parse_reading

TIMEOUT_SECONDS = 5.0
MOST_BYTES = 4 * 1024**2
CONCURRENT = 16
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Scrape:
    """By pod name: what was read, and why the others said nothing."""

    readings: dict[str, PodReading] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)


async def scrape(
    session: aiohttp.ClientSession, urls: Mapping[str, str], *, timeout_seconds: float = TIMEOUT_SECONDS
) -> Scrape:
    """Pod name -> URL of its metrics. Raises nothing but cancellation."""
    result, slots = Scrape(), asyncio.Semaphore(CONCURRENT)

    async def read(pod: str, url: str) -> None:
        async with slots:
            try:
                text = await read_text(session, url, timeout_seconds=timeout_seconds)
                result.readings[pod] = parse_reading(text)
            except TimeoutError:
                result.silent[pod] = f"no metrics within {timeout_seconds:g} s"
            except aiohttp.ClientError as error:  # whose text repeats what the pod answered
                result.silent[pod] = f"no metrics: {type(error).__name__}"
            except ReadingError as error:
                result.silent[pod] = str(error)

    async with asyncio.TaskGroup() as group:
        for pod, url in urls.items():
            group.create_task(read(pod, url))
    return result


async def read_text(
    session: aiohttp.ClientSession,
    url: str,
    *,
    missing: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> str:
    """What the URL answers; ``missing`` where it answers 404. ``TimeoutError`` if it does not in time."""
    async with asyncio.timeout(timeout_seconds), session.get(url, allow_redirects=False) as response:
        if missing is not None and response.status == HTTPStatus.NOT_FOUND:
            return missing
        return await bounded_body(response, MOST_BYTES)


async def bounded_body(response: aiohttp.ClientResponse, most_bytes: int) -> str:
    """``ReadingError`` where the answer is not a 200, or longer."""
    if response.status != 200:
        raise ReadingError(f"metrics answer {response.status}")
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > most_bytes:
            raise ReadingError(f"metrics exceed {most_bytes} bytes")
    return body.decode(errors="replace")
