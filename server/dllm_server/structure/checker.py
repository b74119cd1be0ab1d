"""Whether grammars can be followed, found out in a process of its own: no compilation can be interrupted, and
some would take for ever."""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from contextlib import suppress

import msgspec

from dllm_server.structure.compiler import GrammarError
from dllm_server.structure.grammar import LONGEST_TEXT, Grammar
from dllm_server.structure.vocabulary import VocabularyFiles

PROGRAM = ("-m", "dllm_server.structure")
MOST_CPU_SECONDS = 1.0  # of a compilation
MOST_SECONDS = 60.0  # on a machine with no time left for it
_TOO_SLOW = f"it takes more than {MOST_CPU_SECONDS:g} s, or too much memory, to compile: make it simpler"
_MOST_KNOWN_BYTES = 4 * 1024**2
_LONGEST_LINE = 8 * LONGEST_TEXT


class SlowGrammarError(GrammarError):
    """Compiling it had to be ended."""


class GrammarChecker:
    """Asks one worker process at a time, and one grammar after the other; a worker that a grammar has kept
    busy too long is ended, and the next one started when it is needed. Answers are remembered."""

    def __init__(self, files: VocabularyFiles) -> None:
        self._files = files
        self._turn = asyncio.Lock()
        self._worker: asyncio.subprocess.Process | None = None
        self._known: OrderedDict[Grammar, str] = OrderedDict()
        self._known_bytes = 0
        self._asking: dict[Grammar, asyncio.Task[str]] = {}

    async def check(self, grammar: Grammar) -> None:
        """``GrammarError`` says why the grammar cannot be followed: ``SlowGrammarError`` where compiling it
        takes too long."""
        if (words := self._known.get(grammar)) is None:
            if grammar not in self._asking:  # goes on when who asked has left: the worker answers anyway
                task = asyncio.create_task(self._ask_in_turn(grammar))
                self._asking[grammar] = task
                task.add_done_callback(lambda _: self._asking.pop(grammar))
            words = await asyncio.shield(self._asking[grammar])
        if words:
            raise SlowGrammarError(words) if words == _TOO_SLOW else GrammarError(words)

    async def close(self) -> None:
        """End the worker. Who still waits for it is told that it has ended."""
        worker, self._worker = self._worker, None
        if worker is not None:
            with suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()

    async def _ask_in_turn(self, grammar: Grammar) -> str:
        async with self._turn:
            words = await self._ask(grammar)
        self._known[grammar] = words
        self._known_bytes += _size(grammar, words)
        while self._known_bytes > _MOST_KNOWN_BYTES:
            self._known_bytes -= _size(*self._known.popitem(last=False))
        return words

    async def _ask(self, grammar: Grammar) -> str:
        """Why it cannot be followed, empty where it can."""
        worker = await self._started()
        assert worker.stdin is not None and worker.stdout is not None  # noqa: S101
        line = b""
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(MOST_SECONDS):
                worker.stdin.write(msgspec.json.encode(grammar) + b"\n")
                await worker.stdin.drain()
                line = await worker.stdout.readline()
        if line:
            return msgspec.json.decode(line, type=str)
        await self.close()
        return _TOO_SLOW

    async def _started(self) -> asyncio.subprocess.Process:
        """The worker, once it has read the tokenizer."""
        if self._worker is not None:
            return self._worker
        self._worker = worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *PROGRAM,
            msgspec.json.encode(self._files).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            start_new_session=True,  # a terminal's Ctrl-C is its parent's
        )
        assert worker.stdout is not None  # noqa: S101
        if not await worker.stdout.readline():
            await self.close()
            raise RuntimeError("the process that compiles grammars has not started")
        return worker


def _size(grammar: Grammar, words: str) -> int:
    return len(grammar.text) + len(words) + 100
