"""Requests without a slot, in the order in which they are served."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait

from llguidance import LLMatcher

from dllm_server.engine.requests.request import Request
from dllm_server.structure.compiler import GrammarError
from dllm_server.structure.grammars import Grammars
from dllm_server.structure.match import GrammarMatch


class Queue:
    """Who has a grammar joins once it is compiled; ``len`` counts these too, iteration shows those that have
    joined."""

    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self._ready: deque[Request] = deque()
        self._compiling: dict[str, tuple[Request, Future[LLMatcher]]] = {}

    def __len__(self) -> int:
        return len(self._ready) + len(self._compiling)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._ready)

    def append(self, request: Request) -> None:
        if request.message.grammar is None:
            self._ready.append(request)
        else:
            compiled = self._grammars.compiled(request.message.grammar)
            self._compiling[request.request_id] = request, compiled

    def appendleft(self, request: Request) -> None:
        """One that had been served already."""
        self._ready.appendleft(request)

    def popleft(self) -> Request:
        return self._ready.popleft()

    def remove(self, request: Request) -> None:
        if self._compiling.pop(request.request_id, None) is None:
            self._ready.remove(request)

    def settle(self, wait_seconds: float = 0.0) -> list[tuple[Request, str]]:
        """Let those join whose grammars are compiled, after a wait for one where there is nothing to do; the
        others that will never join, and why."""
        if not self._compiling:
            return []
        wait([compiled for _, compiled in self._compiling.values()], wait_seconds, FIRST_COMPLETED)
        failed = []
        for request, compiled in [*self._compiling.values()]:
            if not compiled.done():
                continue
            del self._compiling[request.request_id]
            try:
                request.follow(GrammarMatch(compiled.result(), self._grammars.mask_token_id))
            except GrammarError as error:
                failed.append((request, str(error)))
            else:
                self._ready.append(request)
        return failed
