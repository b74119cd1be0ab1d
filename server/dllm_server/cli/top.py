"""``dllm top``: what servers tell of themselves, again and again."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
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
    """``url`` is where it is asked, ``host`` the name that it is asked by."""

    url: str
    host: str
    key: str | None = field(default=None, repr=False)


def run_top(urls: Sequence[str], key: str | None, *, interval_seconds: float, is_once: bool) -> int:
    """Until Ctrl-C, or one screen; the exit code is 1 where no server told anything."""
    try:
        return asyncio.run(_top(urls, key, interval_seconds, is_once=is_once))
    except KeyboardInterrupt:
        return 0


async def _top(urls: Sequence[str], key: str | None, interval_seconds: float, *, is_once: bool) -> int:
    console = Console()
    seen: dict[str, Seen] = {}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_SECONDS)) as session:
        if is_once or not console.is_terminal:
            seen = await _look(session, urls, key, seen)
            console.print(screen(list(seen.values())))
            return 0 if any(one.now for one in seen.values()) else 1
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                seen = await _look(session, urls, key, seen)
                live.update(screen(list(seen.values())), refresh=True)
                await asyncio.sleep(interval_seconds)


async def _look(
    session: aiohttp.ClientSession, urls: Sequence[str], key: str | None, seen: dict[str, Seen]
) -> dict[str, Seen]:
    """All servers of now, each with what it told before."""
    found = await asyncio.gather(*(servers_of(url, key) for url in urls))
    servers = {server.url: server for group in found for server in group}
    asked = list(servers.values())[:MOST_SERVERS]
    told = await asyncio.gather(*(_ask(session, server, seen.get(server.url)) for server in asked))
    return {one.address: one for one in told}


async def servers_of(url: str, key: str | None) -> list[Server]:
    """Every address of a name, as a headless Service has one for each pod; IPv6 where there is nothing else.
    A certificate is a name's, so https stays one."""
    base = base_url(url)
    parts = urlsplit(base)
    host = parts.hostname or ""
    if parts.scheme == "https":
        return [Server(base, parts.netloc, key)]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError:
        return [Server(base, parts.netloc, key)]  # which then cannot be asked, and says why
    families = {family for family, *_ in found}
    wanted = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    addresses = dict.fromkeys(str(place[0]) for family, *_, place in found if family is wanted)
    port = parts.port or 80
    return [
        Server(f"http://{f'[{at}]' if ':' in at else at}:{port}{parts.path}", parts.netloc, key)
        for at in addresses
    ]


async def _ask(session: aiohttp.ClientSession, server: Server, before: Seen | None) -> Seen:
    seen = before or Seen(server.url)
    headers = bearer(server.key) | {"Host": server.host}
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
