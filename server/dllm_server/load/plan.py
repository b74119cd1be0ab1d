"""The loads that settings ask for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice

from dllm_server.load.arrivals import Arrival, Draw, arrivals
from dllm_server.load.lengths import PROFILES, LengthProfile
from dllm_server.load.question import Question, TextScale, in_turn, of_profile, random_text, read_questions
from dllm_server.load.run import ClosedLoad, Load, OpenLoad
from dllm_server.load.settings import DEFAULT_CLIENTS, BenchSettings
from dllm_server.load.trace import TraceEntry, read_trace

LEAST_TRIED = 20  # requests of a sweep's try, so that a share of them means something
LONGEST_TRY = 4  # times the duration that is asked for, to come to so many
_STRIDE = 9973  # between the places in a file of prompts where rounds begin


def drawing(settings: BenchSettings, scale: TextScale) -> Draw[Question]:
    """What each request asks."""
    profile = PROFILES[settings.profile]
    if settings.prompts is not None:
        return in_turn(read_questions(settings.prompts, profile.max_tokens, settings.max_tokens))
    if (tokens := settings.prompt_tokens) is not None:
        profile = LengthProfile(tokens, 0.0, tokens, tokens, profile.max_tokens)
    return of_profile(profile, scale, settings.max_tokens)


def loads(settings: BenchSettings, draw: Draw[Question], scale: TextScale) -> list[Load]:
    """One for each round; together they are what was asked for."""
    rounds = settings.rounds if settings.against is not None else 1
    if settings.trace is not None:
        entries = read_trace(settings.trace, speed=settings.trace_speed)
        coming = traced(settings, entries, draw, scale)
        shares = [coming[len(coming) * r // rounds : len(coming) * (r + 1) // rounds] for r in range(rounds)]
        return [OpenLoad(_from_zero(share), settings.timeout) for share in shares if share]
    found: list[Load] = []
    for number in range(rounds):
        requests = _share(settings.requests, number, rounds)
        seconds, seed = settings.seconds / rounds, settings.seed + number
        ask = _from(draw, number * _STRIDE)
        if settings.rate is not None:
            found.append(at_rate(settings, ask, settings.rate, seconds=seconds, most=requests, seed=seed))
        else:
            most = float("inf") if requests is None else requests
            found.append(ClosedLoad(settings.clients or DEFAULT_CLIENTS, ask, seed, most, seconds))
    return [load for load in found if not isinstance(load, ClosedLoad) or load.requests]


def at_rate(
    settings: BenchSettings,
    draw: Draw[Question],
    rate: float,
    *,
    seconds: float,
    most: int | None,
    seed: int,
) -> OpenLoad:
    found = arrivals([(seconds, rate)], draw, shape=settings.burst_shape, seed=seed)
    return OpenLoad(list(islice(found, most)), settings.timeout)


def trial(settings: BenchSettings, draw: Draw[Question], rate: float, number: int) -> OpenLoad:
    """A sweep's try of ``rate``. What is open when no good answer can come any more is cut."""
    coming = at_rate(
        settings,
        _from(draw, number * _STRIDE),
        rate,
        seconds=max(settings.seconds, min(LEAST_TRIED / rate, LONGEST_TRY * settings.seconds)),
        most=settings.requests,
        seed=settings.seed + number,
    )
    limit = settings.objective.end if settings.objective is not None else settings.timeout
    return OpenLoad(coming.arrivals, min(limit, settings.timeout))


def traced(
    settings: BenchSettings, entries: Sequence[TraceEntry], draw: Draw[Question], scale: TextScale
) -> list[Arrival[Question]]:
    """A trace's times and lengths; with a file of prompts its times and answers."""
    rng = random.Random(settings.seed)
    coming = [entry for entry in entries if entry.seconds < settings.seconds][: settings.requests]

    def question(entry: TraceEntry, index: int) -> Question:
        length = settings.max_tokens or entry.max_tokens
        if settings.prompts is None:
            return Question(length, random_text(scale.words(entry.prompt_tokens), rng))
        asked = draw(rng, index)
        return Question(length, asked.text, asked.messages)

    return [Arrival(entry.seconds, question(entry, index)) for index, entry in enumerate(coming)]


def _from_zero(coming: Sequence[Arrival[Question]]) -> list[Arrival[Question]]:
    return [Arrival(arrival.seconds - coming[0].seconds, arrival.job) for arrival in coming]


def _from(draw: Draw[Question], offset: int) -> Draw[Question]:
    return lambda rng, index: draw(rng, index + offset)


def _share(requests: int | None, number: int, rounds: int) -> int | None:
    return None if requests is None else requests * (number + 1) // rounds - requests * number // rounds
