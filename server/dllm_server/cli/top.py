"""``dllm top``: what servers tell of themselves, again and again."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live

from dllm_server.api.schemas.snapshot import Snapshot
from dllm_server.cli.engine_view import Seen, screen
from dllm_server.load.endpoint import base_url, bearer

ASK_SECONDS = 5.0
MOST_SERVERS = 256


@dataclass(frozen=True, slots=True)
class Server:
    """``url`` is where it is asked, ``host`` the name that it is asked by, ``name`` what it is called."""

    name: str
    url: str
    host: str


class Source(Protocol):
    """Where servers are found; what it opens it closes."""

    async def servers(self) -> list[Server | Seen]:
        """Those to ask, and those of which it is known why they cannot be asked."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(self, *error: object) -> None: ...


def run_top(source: Source, key: str | None, *, interval_seconds: float, is_once: bool) -> int:
    """Until Ctrl-C, or one screen; the exit code is 1 where no server told anything."""
    try:
        return asyncio.run(_top(source, key, interval_seconds, is_once=is_once))
    except KeyboardInterrupt:
        return 0


async def _top(source: Source, key: str | None, interval_seconds: float, *, is_once: bool) -> int:
    console = Console()
    seen: list[Seen] = []
    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
    async with source, aiohttp.ClientSession(timeout=timeout) as session:
        if is_once or not console.is_terminal:
            seen = await _look(session, source, key, seen)
            console.print(screen(seen))
            return 0 if any(one.now for one in seen) else 1
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                seen = await _look(session, source, key, seen)
                live.update(screen(seen), refresh=True)
                await asyncio.sleep(interval_seconds)


async def _look(
    session: aiohttp.ClientSession, source: Source, key: str | None, seen: Sequence[Seen]
) -> list[Seen]:
    """All servers of now, each with what it told before."""
    before = {one.address: one for one in seen}

    async def see(found: Server | Seen) -> Seen:
        if isinstance(found, Seen):
            return found
        return await _ask(session, found, key, before.get(found.name) or Seen(found.name))

    servers = await source.servers()
    return list(await asyncio.gather(*(see(found) for found in servers[:MOST_SERVERS])))


class Urls:
    """Servers at addresses that are given."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls

    async def servers(self) -> list[Server | Seen]:
        found = await asyncio.gather(*(servers_of(url) for url in self._urls))
        return list({server.url: server for group in found for server in group}.values())

    async def __aenter__(self) -> Urls:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None


async def servers_of(url: str) -> list[Server]:
    """Every address of a name, as a headless Service has one for each pod; IPv6 where there is nothing else.
    A certificate is a name's, so https stays one."""
    base = base_url(url)
    parts = urlsplit(base)
    host = parts.hostname or ""
    if parts.scheme == "https":
        return [Server(base, base, parts.netloc)]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError:
        return [Server(base, base, parts.netloc)]  # which then cannot be asked, and says why
    families = {family for family, *_ in found}
    wanted = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    addresses = dict.fromkeys(str(place[0]) for family, *_, place in found if family is wanted)
    port = parts.port or 80
    urls = [f"http://{f'[{at}]' if ':' in at else at}:{port}{parts.path}" for at in addresses]
    return [Server(url, url, parts.netloc) for url in urls]


async def _ask(session: aiohttp.ClientSession, server: Server, key: str | None, seen: Seen) -> Seen:
    headers = bearer(key) | {"Host": server.host}
    try:
        async with session.get(f"{server.url}/snapshot", headers=headers) as answer:
            if answer.status != 200:
                return seen.silent(problem(answer.status))
            return seen.told(Snapshot.model_validate_json(await answer.read()))
    except ValidationError:
        return seen.silent("tells something else than this version of dllm top knows")
    except TimeoutError:
        return seen.silent(f"no answer within {ASK_SECONDS:g} s")
    except aiohttp.ClientConnectorError as error:
        return seen.silent(os.strerror(error.errno) if error.errno else "cannot be reached")
    except (aiohttp.ClientError, OSError) as error:
        return seen.silent(type(error).__name__)


def problem(status: int) -> str:
    match status:
        case 401 | 403:
            return f"{status}: give a key (DLLM_TOP_API_KEY)"
        case 404:
            return "404: has no /snapshot, so it is no dllm server, or an older one"
        case 503:
            return "503: the engine has not told its state yet, or has ended"
    return str(status)
