"""``dllm bench`` without its screen: asks the endpoints what they serve, sends the loads, reads counters."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp
from pydantic import SecretStr

from dllm_server.load.agreement import Agreement, agreements
from dllm_server.load.arrivals import Arrival, Draw
from dllm_server.load.comparison import Ratio, compare
from dllm_server.load.endpoint import Endpoint, base_url, bearer, choose_model
from dllm_server.load.objective import Objective
from dllm_server.load.outcome import CUT, Outcome
from dllm_server.load.plan import drawing, loads, trial
from dllm_server.load.question import Question, TextScale, random_text
from dllm_server.load.run import TIMEOUT, Load, OpenLoad, Run, open_session
from dllm_server.load.server_counters import ServerCounters, read_counters
from dllm_server.load.settings import BenchSettings
from dllm_server.load.summary import Summary, summarise
from dllm_server.load.sweep import Sweep

PROBE_WORDS = (16, 144)
ASK_SECONDS = 30.0  # for what is asked beside the load
FIRST_RATE = 1.0
OVERLOAD = ("429", "503", "504", TIMEOUT, CUT)  # failures that a lower rate may cure


class BenchError(ValueError):
    """An endpoint cannot be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One endpoint, and all its rounds."""

    endpoint: Endpoint
    rounds: list[list[Outcome]]
    counted: ServerCounters | None
    objective: Objective

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for outcomes in self.rounds for outcome in outcomes]

    def summary(self) -> Summary:
        return summarise(self.rounds, self.objective)

    def agreements(self) -> list[Agreement]:
        return [] if self.counted is None else agreements(self.outcomes, self.counted)


@dataclass(frozen=True, slots=True)
class Tried:
    rate: float
    has_held: bool
    summary: Summary


@dataclass(slots=True)
class Bench:
    """What is known so far, for a screen; ``stop`` ends it with what there is."""

    settings: BenchSettings
    url: str
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    doing: str = "asking what is served"
    run: Run | None = None
    load: Load | None = None
    scale: TextScale = field(default_factory=TextScale)
    scale_note: str | None = None
    measured: list[Measured] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)
    sweep: Sweep | None = None

    @property
    def objective(self) -> Objective:
        return self.settings.objective or Objective()

    def ratios(self) -> list[Ratio]:
        if len(self.measured) < 2:
            return []
        first, second = self.measured
        rounds = [
            (summarise([one], self.objective), summarise([other], self.objective))
            for one, other in zip(first.rounds, second.rounds, strict=False)
        ]
        return compare(first.summary(), second.summary(), rounds)

    async def measure(self) -> None:
        """Everything; ``BenchError`` when an endpoint does not answer."""
        async with open_session() as session:
            endpoints = await self._endpoints(session)
            for endpoint in endpoints:
                await self._warm_up(session, endpoint)
            draw = drawing(self.settings, self.scale)
            endpoints[0].body(draw(random.Random(0), 0))  # says what cannot be asked
            if self.settings.sweep:
                await self._search(session, endpoints[0], draw)
            else:
                await self._take_turns(session, endpoints, loads(self.settings, draw, self.scale))

    async def _take_turns(
        self, session: aiohttp.ClientSession, endpoints: Sequence[Endpoint], rounds: Sequence[Load]
    ) -> None:
        given = (self.settings.metrics, self.settings.against_metrics)
        metrics = [_metrics_urls(urls, one) for urls, one in zip(given, endpoints, strict=False)]
        for urls, endpoint, asked in zip(metrics, endpoints, given, strict=False):
            if asked is not None and await _counters(session, urls, endpoint) is None:
                raise BenchError(f"{asked}: no counters of requests that are known can be read there")
        self.measured = [Measured(endpoint, [], ServerCounters(), self.objective) for endpoint in endpoints]
        order = list(range(len(endpoints)))
        for number, load in enumerate(rounds, start=1):
            for place in order:
                if self.stop.is_set():
                    return
                turn = f"round {number} of {len(rounds)}, " if len(rounds) > 1 else ""
                self.doing = f"{turn}{endpoints[place].url}"
                await self._turn(session, place, load, metrics[place])
            order.reverse()  # so that neither always comes first

    async def _turn(
        self, session: aiohttp.ClientSession, place: int, load: Load, metrics: Sequence[str]
    ) -> None:
        measured = self.measured[place]
        before = await _counters(session, metrics, measured.endpoint)
        outcomes = await self._serve(session, measured.endpoint, load)
        after = await _counters(session, metrics, measured.endpoint)
        counted = None
        if measured.counted is not None and before is not None and after is not None:
            counted = measured.counted.plus(after.since(before))
        rounds = [*measured.rounds, outcomes]
        self.measured[place] = Measured(measured.endpoint, rounds, counted, self.objective)

    async def _search(self, session: aiohttp.ClientSession, endpoint: Endpoint, draw: Draw[Question]) -> None:
        self.sweep = Sweep(self.settings.rate or FIRST_RATE, self.settings.sweep_tolerance)
        while (rate := self.sweep.next_rate()) is not None:
            self.doing = f"trying {rate:.3g} requests a second"
            load = trial(self.settings, draw, rate, len(self.tried))
            outcomes = await self._serve(session, endpoint, load)
            if self.stop.is_set():
                return
            summary = summarise([outcomes], self.objective)
            if not summary.answered and not any(kind.startswith(OVERLOAD) for kind in summary.errors):
                raise BenchError(f"{endpoint.url} answers nothing at {rate:.3g} a second: {summary.errors}")
            has_held = summary.good_share >= self.settings.sweep_share
            self.sweep = self.sweep.tried(rate, has_held=has_held)
            self.tried.append(Tried(rate, has_held, summary))
            if has_held and rate == self.sweep.held:
                self.measured = [Measured(endpoint, [outcomes], None, self.objective)]

    async def _serve(self, session: aiohttp.ClientSession, endpoint: Endpoint, load: Load) -> list[Outcome]:
        self.load = load
        self.run = Run(session, endpoint, timeout_seconds=self.settings.timeout, stop=self.stop)
        return await self.run.serve(load)

    async def _endpoints(self, session: aiohttp.ClientSession) -> list[Endpoint]:
        asked = self.settings
        found = [await self._endpoint(session, self.url, asked.model, asked.api_key)]
        if asked.against is not None:
            found.append(
                await self._endpoint(session, asked.against, asked.against_model, asked.against_api_key)
            )
        return found

    async def _endpoint(
        self, session: aiohttp.ClientSession, url: str, model: str | None, secret: SecretStr | None
    ) -> Endpoint:
        base, key = base_url(url), secret.get_secret_value() if secret else None
        try:
            async with (
                asyncio.timeout(ASK_SECONDS),
                session.get(f"{base}/v1/models", headers=bearer(key)) as got,
            ):
                if got.status != 200:
                    raise BenchError(f"{base}/v1/models answers {got.status}{_hint(got.status)}")
                listing = await got.json(content_type=None)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, BenchError):
                raise
            raise BenchError(f"{base}/v1/models: {str(error) or type(error).__name__}") from error
        extra = ({"ignore_eos": True} if self.settings.ignore_eos else {}) | self.settings.body
        return Endpoint(base, choose_model(listing, model, base), self.settings.api, key, extra)

    async def _warm_up(self, session: aiohttp.ClientSession, endpoint: Endpoint) -> None:
        """One request after the other; the first two of random words say how many tokens a word has."""
        self.doing = f"warming up {endpoint.url}"
        rng = random.Random(self.settings.seed)
        sizes = list(PROBE_WORDS) if self.settings.prompts is None else []
        sizes += [PROBE_WORDS[0]] * max(self.settings.warmup - len(sizes), 0)
        counted: list[int | None] = []
        for words in sizes:
            question = Question(self.settings.max_tokens or 16, random_text(words, rng))
            load = OpenLoad([Arrival(0.0, question)], self.settings.timeout)
            outcomes = await self._serve(session, endpoint, load)
            if self.stop.is_set():
                return
            if (error := outcomes[0].error) is not None:
                words_of_it = f": {self.run.refusal}" if self.run and self.run.refusal else ""
                raise BenchError(
                    f"{endpoint.url} fails a first request of {words} words: {error}{words_of_it}"
                )
            counted.append(outcomes[0].prompt_tokens)
        self.run = self.load = None
        short, long = (*counted, None, None)[:2]
        if self.settings.prompts is None and endpoint.url == base_url(self.url):
            if short is None or long is None:
                self.scale_note = "the endpoint counts no tokens: a word is taken for one"
            else:
                self.scale = TextScale.through((PROBE_WORDS[0], short), (PROBE_WORDS[1], long))


def _metrics_urls(given: str | None, endpoint: Endpoint) -> list[str]:
    return [url.strip() for url in given.split(",")] if given else [f"{endpoint.url}/metrics"]


async def _counters(
    session: aiohttp.ClientSession, urls: Sequence[str], endpoint: Endpoint
) -> ServerCounters | None:
    """None where there are none to be had; the key goes nowhere but to its endpoint."""
    texts = []
    for url in urls:
        headers = endpoint.headers if url.startswith(f"{endpoint.url}/") else {}
        try:
            async with asyncio.timeout(ASK_SECONDS), session.get(url, headers=headers) as got:
                if got.status != 200:
                    return None
                texts.append(await got.text())
        except (aiohttp.ClientError, OSError, ValueError):
            return None
    return read_counters(texts)


def _hint(status: int) -> str:
    return ": give a key (DLLM_BENCH_API_KEY)" if status in (401, 403) else ""
